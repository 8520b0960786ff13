"""Sessions: who may open one, and with which settings pinned."""

from database_bootstrap.postgres import pem
from database_bootstrap.postgres.connection import Connection
from database_bootstrap.postgres.login import Login, Settings

LIMIT_SECONDS = 600.0
"""How long a statement that changes something may take, where nothing else is said."""
LOOK_SECONDS = 30.0
"""How long one may take that only reads."""
GRACE_SECONDS = 60.0
"""How much longer an answer is waited for: the server is to give up by itself."""
_QUIET = {
    # Nobody reads them. The start of a session has some too, which quote a database's settings, however long.
    "client_min_messages": "error",
}
_PINNED = {
    # A session that waits for a migration's child must not be ended for being idle.
    "idle_session_timeout": "0",
    **_QUIET,
    "search_path": "pg_catalog,pg_temp",
    "row_security": "off",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "60s",
}
ADMINISTRATOR: Settings = {
    **_PINNED,
    # A tenant's ALTER DATABASE … SET role would otherwise turn this session into the tenant's.
    "role": "none",
    "statement_timeout": f"{LIMIT_SECONDS:.0f}s",
    "default_transaction_read_only": "off",
}
OBSERVER: Settings = {
    **_PINNED,
    "statement_timeout": f"{LOOK_SECONDS:.0f}s",
    "default_transaction_read_only": "on",
}
OWNER: Settings = {
    "idle_session_timeout": "0",
    **_QUIET,
    "lock_timeout": "5s",
    # Where there are migrations, theirs comes in its place.
    "statement_timeout": f"{LIMIT_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": "60s",
    "default_transaction_read_only": "off",
}
"""The role's ordinary settings, but for what keeps others from waiting for us."""
_RESTRICT = "SET restrict_nonsystem_relation_kind = 'view, foreign-table'"
_RESTRICTING_MINORS = {15: 8, 16: 4, 17: 0}
"""The first minors that know it (CVE-2024-7348); a startup packet that asks for what is not known is refused."""


async def connect(login: Login, settings: Settings, limit: float = LIMIT_SECONDS) -> Connection:
    """Open a session in autocommit mode; raise psycopg.OperationalError as the server refused.

    Who asks something in it is told so where the server takes much longer than `limit` seconds for one answer.
    """
    connection = await _connected(login, settings)
    connection.patience = limit + GRACE_SECONDS
    return connection


async def _connected(login: Login, settings: Settings) -> Connection:
    addresses = login.endpoint.addresses
    return await Connection.connect(
        host=",".join([login.endpoint.host] * max(len(addresses), 1)),
        hostaddr=",".join(addresses) or None,
        port=login.endpoint.port,
        user=login.user,
        password=login.password,
        dbname=login.database,
        sslmode=login.endpoint.sslmode,
        require_auth=login.endpoint.require_auth,
        application_name=login.application_name,
        options=_options(settings),
        autocommit=True,
        prepare_threshold=None,
        # Of a database in another encoding the bytes of names, scripts and CSV would be taken for its own.
        client_encoding="UTF8",
        sslrootcert=pem.file_of(login.endpoint.ca) if login.endpoint.ca else None,
        sslcert=pem.file_of(login.certificate.chain) if login.certificate else None,
        sslkey=pem.secret_file_of(login.certificate.key) if login.certificate else None,
        connect_timeout=10,
        keepalives_idle=30,
        keepalives_interval=10,
        keepalives_count=3,
        # The same minute for what was sent and never acknowledged; the kernel would try for a quarter of an hour.
        tcp_user_timeout=60_000,
        gssencmode="disable",
    )


async def connect_administrator(login: Login) -> Connection:
    """Open the administrator's session, in which nothing that a tenant made is reached by name or by rule."""
    connection = await connect(login, ADMINISTRATOR)
    try:
        if _can_restrict(connection.info.server_version):
            await connection.execute(_RESTRICT)
    except BaseException:
        await connection.close()
        raise
    return connection


def _can_restrict(version: int) -> bool:
    major, minor = divmod(version, 10_000)
    return minor >= _RESTRICTING_MINORS.get(major, 0 if major > max(_RESTRICTING_MINORS) else 10_000)


def _options(settings: Settings) -> str:
    """Return the startup packet's options; blanks and backslashes are escaped as libpq documents it."""
    return " ".join(
        f"-c {name}={value.replace(chr(92), chr(92) * 2).replace(' ', chr(92) + ' ')}"
        for name, value in settings.items()
    )
