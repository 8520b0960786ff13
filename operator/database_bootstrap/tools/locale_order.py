"""The order that JavaScript's localeCompare gives to names."""

import unicodedata

_PUNCTUATION = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"
"""ASCII in the order of CLDR's root collation (allkeys_CLDR.txt), in which nothing is ignored; blanks come before."""


def locale_key(name: str) -> tuple[object, ...]:
    """Return a sort key: first the letters, then their accents, then lower case before upper.

    Exact for ASCII names; for others an approximation, which is enough to see that two orders may differ.
    """
    plain = unicodedata.normalize("NFD", name)
    base = [character for character in plain if not unicodedata.combining(character)]
    accents = [character for character in plain if unicodedata.combining(character)]
    return ([_weight(character) for character in base], accents, [character.isupper() for character in base])


def _weight(character: str) -> tuple[int, str]:
    if character.isspace():
        return 0, character
    if character in _PUNCTUATION:
        return 1, chr(_PUNCTUATION.index(character))
    if character.isdecimal():
        return 2, str(unicodedata.decimal(character))
    return 3, character.casefold()
