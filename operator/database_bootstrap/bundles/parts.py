"""What `bundle` says of each ConfigMap that it writes, so that several are used as a whole or not at all."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from database_bootstrap.errors import BundleRejected, ReferenceNotFound

_FORM = re.compile(r"([-.a-z0-9]{1,253});([1-9][0-9]{0,3})/([1-9][0-9]{0,3});(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One ConfigMap's place among those that one run of `bundle` has written."""

    bundle: str
    """The name that `bundle` was given."""
    number: int
    """From 1."""
    total: int
    digest: str
    """Of what all of them hold."""

    def __str__(self) -> str:
        return f"{self.bundle};{self.number}/{self.total};{self.digest}"


def parse(config_map: str, text: str) -> Part:
    """Return what the annotation of this ConfigMap says; raise `BundleRejected` for what `bundle` does not write."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise BundleRejected(
            f"What the ConfigMap {config_map} says of its part in a bundle is not what `bundle` writes; apply its "
            "output again, or remove the annotation from a ConfigMap that was written by hand"
        )
    bundle, number, total, digest = found.groups()
    return Part(bundle=bundle, number=int(number), total=int(total), digest=digest)


def check(parts: Iterable[tuple[str, Part]]) -> None:
    """Raise where ConfigMaps are not the whole of what one run has written; each bundle stands for itself.

    `ReferenceNotFound` while two runs are mixed, as between the writes of two ConfigMaps: that heals by itself.
    `BundleRejected` where one that was written is not among them.
    """
    bundles: dict[str, list[tuple[str, Part]]] = {}
    for name, part in parts:
        bundles.setdefault(part.bundle, []).append((name, part))
    for bundle, members in bundles.items():
        _check(bundle, members)


def _check(bundle: str, members: Sequence[tuple[str, Part]]) -> None:
    listed = ", ".join(f"{name} ({part.number}/{part.total})" for name, part in members[:6])
    listed += f" and {len(members) - 6} more" if len(members) > 6 else ""
    if len({part.digest for _, part in members}) > 1:
        raise ReferenceNotFound(
            f"The ConfigMaps of the bundle {bundle} come from different runs of `bundle`: {listed}. Nothing was run. "
            "While they are being written this passes by itself; if it stays, apply all that one run has written, and "
            "list only that in configMapRefs"
        )
    total = members[0][1].total
    missing = sorted(set(range(1, total + 1)) - {part.number for _, part in members})
    if missing:
        names = ", ".join(f"{bundle}-{number}" for number in missing)
        raise BundleRejected(
            f"The bundle {bundle} has {total} ConfigMaps, and configMapRefs lacks {names}; it has {listed}. Nothing "
            "was run; list them all"
        )
