"""What pydantic refuses, as sentences for people; values are never repeated, they may be secret or long."""

import re

from pydantic import ValidationError

from database_bootstrap.api.rules import CONTROL

SHOWN = 3
KEY_LENGTH = 63


def sentence(error: ValidationError) -> str:
    """Return one sentence that names the first fields at fault and counts the others."""
    mistakes = [
        f"{_path(mistake['loc'])}: {_words(mistake['msg'])}"
        for mistake in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f"; and {len(mistakes) - SHOWN} more" if len(mistakes) > SHOWN else ""
    return "; ".join(mistakes[:SHOWN]) + more


def _words(message: str) -> str:
    known = {"Field required": "is required", "Extra inputs are not permitted": "is not a field of the resource"}
    return known.get(message) or re.sub(r"^\w+ should ", "must ", message)


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{_key(part)}" for part in location)
    return "spec" + "".join(parts)


def _key(name: str) -> str:
    # The name of an unknown field is whatever somebody wrote there.
    printable = re.sub(CONTROL, "�", name)
    return printable if len(printable) <= KEY_LENGTH else printable[:KEY_LENGTH] + "…"
