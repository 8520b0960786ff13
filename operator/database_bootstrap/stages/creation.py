"""What only counts when a database is created: compared later, said where it differs, never changed; pure."""

from database_bootstrap.api.v1alpha1 import DatabaseSpec, LocaleSpec
from database_bootstrap.errors import SettingMismatch
from database_bootstrap.stages.catalogue import Database


def check(wanted: DatabaseSpec, found: Database) -> None:
    """Raise `SettingMismatch` where encoding or locale is another one."""
    if wanted.encoding != found.encoding:
        raise SettingMismatch(
            f'Database "{found.name}" has encoding {found.encoding} instead of {wanted.encoding}, which only counts at '
            "creation; make a new database and move the data"
        )
    if wanted.locale and _locale_key(wanted.locale) != _found_locale(found):
        raise SettingMismatch(
            f'Database "{found.name}" has locale {found.locale or found.collate} instead of {wanted.locale.name} '
            f"({wanted.locale.provider.value}), which only counts at creation; make a new database and move the data"
        )


def _locale_key(locale: LocaleSpec) -> tuple[str, str]:
    return locale.provider.value[0].lower().replace("l", "c"), _spelled(locale.name)


def _found_locale(found: Database) -> tuple[str, str]:
    return found.provider, _spelled(found.collate if found.provider == "c" else found.locale or "")


def _spelled(locale: str) -> str:
    # The server rewrites what it was given: en_US.utf8 → en_US.UTF-8 (libc), de_AT → de-AT (ICU, 16 and newer).
    return locale.lower().replace("_", "").replace("-", "")
