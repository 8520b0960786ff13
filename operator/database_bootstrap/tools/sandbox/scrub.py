"""Text of the project's code without the password, in whatever form a program would print it."""

import base64
import json
from dataclasses import fields, replace
from typing import Any
from urllib.parse import quote, quote_plus

from database_bootstrap.tools.sandbox import wire

_MASK = "***"


def text(words: str, password: str) -> str:
    """Return the text with every known form of the password masked, and nothing in it that cannot be shown."""
    for form in sorted(_forms(password), key=len, reverse=True):
        words = words.replace(form, _MASK)
    return "".join(each if each.isprintable() or each in "\n\t" else "�" for each in words)


def event(one: wire.Event, password: str) -> wire.Event:
    """Return the event with all its texts scrubbed."""
    texts = {each.name: getattr(one, each.name) for each in fields(one)}
    clean: dict[str, Any] = {name: text(value, password) for name, value in texts.items() if isinstance(value, str)}
    return replace(one, **clean)


def _forms(password: str) -> set[str]:
    if not password:
        return set()
    encoded = password.encode()
    plain = {password, quote(password, safe=""), quote(password), quote_plus(password)}
    quoted = {repr(password)[1:-1], json.dumps(password)[1:-1], json.dumps(password, ensure_ascii=False)[1:-1]}
    coded = {base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode(), encoded.hex()}
    forms = plain | quoted | coded
    return forms | {form.replace("%", "%%") for form in forms} | {repr(form)[1:-1] for form in forms}
