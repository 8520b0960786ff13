"""Manifests → YAML in which scripts are readable."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import yaml


class _Dumper(yaml.SafeDumper):
    """Text of several lines as such; whatever that cannot hold exactly is quoted by itself."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if re.search(r"\n.", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def write(manifests: Iterable[Mapping[str, Any]], into: TextIO) -> None:
    """Write the manifests as the documents of one file."""
    plain = [dict(manifest) for manifest in manifests]
    yaml.dump_all(plain, into, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, explicit_start=True)
