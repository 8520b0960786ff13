"""Adoption: taking over what existed before and carries no mark; what was found, and whether it may be taken."""

from dataclasses import dataclass

from database_bootstrap import errors
from database_bootstrap.api.v1alpha1 import Adoption
from database_bootstrap.postgres.ownership import Mark, mark_in
from database_bootstrap.postgres.spelling import cure, sql_name
from database_bootstrap.stages import catalogue, contents, creation, identity, policy
from database_bootstrap.stages.authority import Authority, authority_over
from database_bootstrap.stages.catalogue import Database, Inside
from database_bootstrap.stages.claims import may_take, not_owned
from database_bootstrap.stages.contents import Tables
from database_bootstrap.stages.sessions import rows
from database_bootstrap.stages.visit import Visit

PROVEN = frozenset({"3D000", "42501"})
"""The password was right; the database is not there, or may not be entered."""
_HARMLESS = ("pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables")
_ABOVE = """
    WITH RECURSIVE above (oid) AS (
        SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
        WHERE r.rolname = %s
        UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN above a ON m.member = a.oid)
    SELECT r.rolname,
           (r.rolsuper OR r.rolreplication OR r.rolbypassrls OR r.rolcreaterole
            OR r.rolname ~ '^(pg_|rds|cloudsql|azure_)') AND r.rolname <> ALL (%s)
    FROM pg_catalog.pg_roles r JOIN above USING (oid) ORDER BY 1
"""
_COMMENTS = """
    SELECT d.datname, pg_catalog.right(pg_catalog.shobj_description(d.oid, 'pg_database'), 4096)
    FROM pg_catalog.pg_database d WHERE pg_catalog.pg_get_userbyid(d.datdba) = %s ORDER BY 1
"""


CHANGES = (
    "Comments will say whose it is, the administrator will be let in to add schema dbbootstrap, and a database of the "
    "administrator's or a superuser's will be handed over to the role. By that no password is changed, no attribute "
    "that the resource does not name, no right of others, and no table."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The role as adoption sees it."""

    name: str
    can_login: bool
    attributes: tuple[str, ...]
    powers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that is to be known before a role without a mark, and the database that it may own, are taken or refused."""

    candidate: Candidate
    memberships: tuple[str, ...]
    dangers: tuple[str, ...]
    """Of the memberships: those that lend a power which an application must not have."""
    marks: tuple[tuple[str, Mark], ...]
    """Databases of the role that carry a mark."""
    database: Database | None
    inside: Inside | None
    """None where the database is not there, or the role cannot enter it."""
    tables: Tables | None
    authority: Authority
    proves_possession: bool
    """The password of the Secret was asked for with SCRAM, and was right."""
    refusal: str | None

    @property
    def is_role_owner(self) -> bool:
        """Whether the role owns the database."""
        return self.database is not None and self.database.owner == self.candidate.name


async def survey(visit: Visit, candidate: Candidate) -> Survey:
    """Look at a role without a mark, and at the database that the resource wants."""
    session = await visit.sessions.try_role() if candidate.can_login else None
    view = session or await visit.view()
    database = await catalogue.find_database(view, visit.spec.database.name)
    above = await rows(view, _ABOVE, (candidate.name, list(_HARMLESS)), doing="look at the role's memberships")
    comments = await rows(view, _COMMENTS, (candidate.name,), doing="look at the role's databases")
    is_inside = session is not None and database is not None
    refusal = visit.sessions.refusal
    is_asked_for = (await visit.credentials.endpoint()).require_auth == "scram-sha-256"
    return Survey(
        candidate=candidate,
        memberships=tuple(name for name, _ in above),
        dangers=tuple(name for name, is_danger in above if is_danger),
        marks=tuple((name, mark) for name, comment in comments if (mark := mark_in(comment))),
        database=database,
        inside=await catalogue.look_inside(session, visit.spec) if session and is_inside else None,
        tables=await contents.count_tables(session, candidate.name) if session and is_inside else None,
        authority=await authority_over(visit, database),
        proves_possession=is_asked_for and (session is not None or refusal in PROVEN),
        refusal=refusal,
    )


def is_ours_by_ledger(visit: Visit, found: Survey) -> bool:
    """Whether only the marks are gone: the role logs in, owns the database, and the ledger in it is this resource's.

    Where nothing may be adopted, one that the role may have written itself proves nothing.
    """
    inside = found.inside
    if inside is None or inside.incarnation is None or not identity.is_of(visit.subject, inside):
        return False
    is_proof = visit.subject.adoption_refused_by is None or (inside.has_ledger and not inside.has_ledger_of_role)
    return is_proof and found.is_role_owner and found.proves_possession


def check(visit: Visit, found: Survey) -> None:
    """Raise where the role must not be taken, or not with what is there; nothing has been changed then."""
    _check_powers(found)
    for name, mark in found.marks:
        if not may_take(visit, mark):
            raise not_owned(visit, f'Role "{found.candidate.name}", whose database "{name}" is marked already,', mark)
    identity.check(visit.subject, visit.pin, found.database, found.inside)
    if is_ours_by_ledger(visit, found):
        return
    _check_possession(visit, found)
    if found.database is None:
        _check_creation(found)
    else:
        check_database(visit, found.database, found.authority)


def _check_powers(found: Survey) -> None:
    role = found.candidate
    if found.authority.is_the_role:
        raise errors.NotOwned(
            f'Role "{role.name}" is the administrator itself, and is never adopted: an application must have a role of '
            "its own. Choose another role.name"
        )
    if role.powers:
        raise errors.RoleTooPowerful(
            f'Role "{role.name}" exists and is {" ".join(role.powers)}, which an application must not be; it is never '
            f"adopted. Take it away with ALTER ROLE {sql_name(role.name)} "
            f"{' '.join(f'NO{power}' for power in role.powers)}"
        )
    if found.dangers:
        listed = ", ".join(map(sql_name, found.dangers))
        raise errors.RoleTooPowerful(
            f'Role "{role.name}" exists and is a member of {listed}, whose powers an application must not have; it is '
            f"never adopted. Take it away with REVOKE {listed} FROM {sql_name(role.name)}"
        )


def _check_wanted(visit: Visit, exists: str, field: str) -> None:
    """Raise where nothing is to be adopted, by the resource's own word or by that of its server."""
    if visit.subject.adoption_refused_by:
        raise policy.adoption_refusal(visit.subject.adoption_refused_by, exists)
    if visit.spec.adoption is Adoption.NEVER:
        raise errors.NotOwned(f"{exists}, as spec.adoption is Never. Choose another {field}")


def _check_possession(visit: Visit, found: Survey) -> None:
    name, secret = found.candidate.name, visit.spec.role.password_secret_ref
    exists = f'Role "{name}" exists and was not made by this operator; it is left alone'
    _check_wanted(visit, exists, "role.name")
    if secret is None:
        raise errors.NotOwned(
            f"{exists}. To have it adopted, write its password into a Secret and name that in role.passwordSecretRef; "
            "or choose another role.name"
        )
    if not found.candidate.can_login:
        raise errors.RoleLoginRefused(
            f"{exists}: it may not log in, and adoption changes no attribute. Let it with "
            f"ALTER ROLE {sql_name(name)} LOGIN, or choose another role.name"
        )
    if found.refusal == "28P01":
        raise errors.NotOwned(
            f"{exists}: the password in Secret {secret.name} does not log in, and adoption never sets one. Write the "
            f"right one into the Secret (or set it with ALTER ROLE {sql_name(name)} PASSWORD, which also cures one "
            "that is kept as md5), or choose another role.name"
        )
    if found.refusal == "28000":
        raise errors.RoleLoginRefused(
            f'The server lets role "{name}" not in at all (SQLSTATE 28000): pg_hba.conf has no line for it'
        )
    if found.refusal and found.refusal not in PROVEN:
        raise errors.ServerBusy(f'The server takes no session of role "{name}" now (SQLSTATE {found.refusal})')
    if not found.proves_possession and visit.spec.adoption is not Adoption.FORCE:
        raise errors.NotOwned(
            f"{exists}: a login that is not asked for its password with scram-sha-256 proves nothing. Set require_auth "
            "in the admin Secret back, or, on an administrator's word, spec.adoption to Force"
        )


def _check_creation(found: Survey) -> None:
    name, administrator = found.candidate.name, found.authority.administrator
    if not found.authority.may_own:
        raise errors.AccessDenied(
            f'The administrator "{administrator}" may not make a database for role "{name}", which it has not made '
            "itself. Nothing was changed; make the database with the role as its owner, or "
            + cure(f"GRANT {sql_name(name)} TO {sql_name(administrator)} WITH ADMIN OPTION")
        )


def check_database(visit: Visit, database: Database, authority: Authority | None) -> None:
    """Raise where a database without a mark must not be taken; `authority` is None where it is not asked for."""
    role, owner, quoted = visit.spec.role.name, database.owner, f'Database "{database.name}"'
    hand_over = f"ALTER DATABASE {sql_name(database.name)} OWNER TO {sql_name(role)}"
    exists = f"{quoted} exists and was not made by this operator; it is left alone"
    _check_wanted(visit, exists, "database.name")
    creation.check(visit.spec.database, database)
    if owner == role:
        return
    owned = f'{exists}. It is owned by "{owner}", and not by role "{role}"'
    if visit.spec.adoption is not Adoption.FORCE or authority is None:
        raise errors.NotOwned(
            f"{owned}. To have it adopted, hand it over with {hand_over}, or set spec.adoption to Force; or choose "
            "another database.name"
        )
    if authority.finds_ledger:
        raise errors.NotOwned(
            f"{owned}, and there is a ledger in it (schema dbbootstrap), so it is another resource's. If it is this "
            f"one's all the same, hand it over with {hand_over}"
        )
    if not authority.is_owner_general:
        raise errors.NotOwned(
            f"{owned}: that role may be another application's, which would lose its database. If it is not, hand it "
            f"over with {hand_over}"
        )
    if not authority.may_hand_over:
        raise errors.AccessDenied(
            f'The administrator "{authority.administrator}" may not hand over database "{database.name}" from '
            f'"{owner}". Nothing was changed; {cure(hand_over)}'
        )


def describe_role(found: Survey) -> str:
    """Return the role as found, in a few words."""
    member = [f"member of {', '.join(found.memberships)}"] if found.memberships else []
    return f'role "{found.candidate.name}" ({", ".join([*found.candidate.attributes, *member])})'


def describe_database(database: Database, tables: Tables | None) -> str:
    """Return the database as found, in a few words."""
    public = ["PUBLIC may connect, which stays so"] if database.public_may_connect else []
    words = [f'owner "{database.owner}"', database.encoding, str(tables or "tables not looked at"), *public]
    return f'database "{database.name}" ({", ".join(words)})'


def announcement(found: Survey) -> str:
    """Return what was found and what will be changed, for the status, before anything is."""
    database, tables = found.database, found.tables or found.authority.tables
    things = [describe_role(found)] + ([describe_database(database, tables)] if database else [])
    return f"Adopting {' and '.join(things)}. {CHANGES}"
