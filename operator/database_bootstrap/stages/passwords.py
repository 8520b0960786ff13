"""Passwords: another one on a person's word; kept before it is set, and published as soon as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api import names
from database_bootstrap.api.status import clean
from database_bootstrap.postgres import scram
from database_bootstrap.postgres.ownership import Mark, Origin
from database_bootstrap.postgres.spelling import sql_name
from database_bootstrap.stages.claims import was_said_to_be_ours
from database_bootstrap.stages.visit import Visit

_WORD_LENGTH = 256


def word(visit: Visit) -> str | None:
    """Return a person's word that the generated password is to be another one; None where there is none."""
    value = visit.subject.annotations.get(names.ANNOTATION_ROTATE_PASSWORD)
    return clean(value, _WORD_LENGTH) if value else None


async def handled(visit: Visit) -> str | None:
    """Return the word that was last acted upon: the Secret says it, or where that is gone the status.

    Where neither is there, as for a resource that was made again, the word that is there counts as done: it came with
    the manifest, and a deleted Secret is no reason to change a password.
    """
    known = visit.subject.status.role
    if visit.spec.role.password_secret_ref:
        return known.password_rotation if known else None
    if await visit.credentials.is_kept():
        return await visit.credentials.rotation()
    return known.password_rotation if known else word(visit)


def is_asked(visit: Visit, done: str | None) -> bool:
    """Whether a person has said that the password is to be another one, and that has not been done."""
    said = word(visit)
    return said is not None and said != done and visit.spec.role.password_secret_ref is None


def is_adopted(mark: Mark) -> bool:
    """Whether somebody else has made the role, and sets its password; what could not be marked was not made here."""
    return mark.origin is Origin.ADOPTED or mark.role_unmarked


def is_due(visit: Visit, mark: Mark | None, done: str | None) -> bool:
    """Whether a person wants another password, and it is this resource's to set."""
    return mark is not None and not is_adopted(mark) and is_asked(visit, done)


def remarks(visit: Visit, mark: Mark | None, done: str | None) -> Iterator[str]:
    """Yield why the word of a person is not acted upon, where it is not."""
    said, reference = word(visit), visit.spec.role.password_secret_ref
    if said and reference:
        yield (
            f"{names.ANNOTATION_ROTATE_PASSWORD} has no effect: write another password into Secret {reference.name} "
            "(role.passwordSecretRef), and it is set."
        )
    elif mark and is_adopted(mark) and is_asked(visit, done):
        yield (
            f"{names.ANNOTATION_ROTATE_PASSWORD} has no effect on an adopted role: set its password with "
            f"ALTER ROLE {sql_name(visit.spec.role.name)} PASSWORD, and write it into Secret "
            f"{visit.credentials.password_secret}."
        )


def lost(visit: Visit, mark: Mark | None) -> errors.PasswordLost:
    """Return the error for a role whose password nobody has kept, with the ways out that its own mark leaves."""
    role, credentials = visit.spec.role.name, visit.credentials
    if mark is not None and not is_adopted(mark):
        rotate = f"{names.ANNOTATION_ROTATE_PASSWORD}=<any new value>"
        if visit.subject.is_uid_derived and not was_said_to_be_ours(visit, mark):  # See `check_namesake`.
            rotate += f" (and, unless it is another project's, {names.ANNOTATION_TAKE_OVER}={mark.owner.uid})"
        way = f"have another one made with the annotation {rotate}, or write one into a Secret"
    else:  # It is not this resource's to set.
        way = f"set another one with ALTER ROLE {sql_name(role)} PASSWORD, write it into a Secret"
    return errors.PasswordLost(
        f'Role "{role}" exists, and neither Secret {credentials.password_secret} nor Secret '
        f"{credentials.connection_secret} has its password; bring one of them back, or {way} and name it in "
        "role.passwordSecretRef"
    )


def check_namesake(visit: Visit, mark: Mark | None) -> None:
    """Raise where the role may be that of another project's resource of this name: only its password tells."""
    if mark is None or not visit.subject.is_uid_derived or was_said_to_be_ours(visit, mark):
        return
    name = visit.spec.role.name
    raise errors.NotOwned(
        f'Role "{name}" belongs to {mark.owner}, as every resource of this name is called where there is no '
        f"cluster, and the password in Secret {_secret(visit)} does not log in: it may be another project's. It is "
        f"left alone. If it is this one's, write the right password into the Secret, or set it with "
        f"ALTER ROLE {sql_name(name)} PASSWORD, or annotate this one with {names.ANNOTATION_TAKE_OVER}={mark.owner.uid}"
    )


def check_adopted(visit: Visit, mark: Mark | None) -> None:
    """Raise for an adopted role, and for one without a mark of its own: what its database says is no proof."""
    if mark is None or is_adopted(mark):
        name, why = visit.spec.role.name, "is adopted" if mark else "carries no mark of its own"
        raise errors.RoleLoginRefused(
            f'Role "{name}" {why}, and the password in Secret {_secret(visit)} does not log in; adoption never '
            f"sets one. Write the right one into the Secret, or set it with ALTER ROLE {sql_name(name)} PASSWORD"
        )


def _secret(visit: Visit) -> str:
    reference = visit.spec.role.password_secret_ref
    return reference.name if reference else visit.credentials.password_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacePassword:
    """Generate another password, and keep it before it is set: after a crash the next visit sets what is kept."""

    secret: str
    rotation: str

    def __str__(self) -> str:
        return f"generate another password into Secret {self.secret}, as a person said"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.replace_password(scram.generate_password(), self.rotation)


def replacement(visit: Visit) -> ReplacePassword:
    """Return what makes the password another one, on the word that is there."""
    said = word(visit)
    assert said is not None
    return ReplacePassword(secret=visit.credentials.password_secret, rotation=said)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPassword:
    """Give a new password to the application at once: it has no other that logs in, and migrations may take long."""

    secret: str

    def __str__(self) -> str:
        return f"publish the new password in Secret {self.secret}"

    async def run(self, visit: Visit) -> None:
        await visit.credentials.publish_password()
