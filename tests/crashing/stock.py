"""What the walked resources ask for: the same shop with each tool, and nothing in it that would hide a second time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from postgres.alembic_projects import revision

# No key and no constraint: whatever is done twice is there twice.
STEPS = (
    "CREATE TABLE trace (step text); CREATE TABLE customer (id serial, name text); INSERT INTO trace VALUES ('first');",
    "ALTER TABLE customer ADD COLUMN email text; INSERT INTO trace VALUES ('second');",
    "CREATE TABLE orders (id int, customer int); INSERT INTO trace VALUES ('third');",
)
SEED = {
    "1_customers.sql": "INSERT INTO customer (id, name) VALUES (1, 'Ann'), (2, 'Bob');",
    "public.orders.csv": "id,customer\n1,1\n2,1\n3,2\n",
}
SEEDED_ROWS = 5
ALONE = "-- dbbootstrap: transaction=off\nCREATE INDEX CONCURRENTLY customer_name ON customer (name);"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """One tool's migrations."""

    tool: str
    files: Mapping[str, str]
    names: tuple[str, ...]
    """As the ledger has them."""
    history: str
    """What the tool's own table must say, as a query."""
    wanted: tuple[tuple[Any, ...], ...]
    """And what that must give."""
    alone: str | None = None
    """The migration that is not one transaction."""


def _alembic() -> dict[str, str]:
    names = ("r001", "r002", "r003")
    lines = [[f"op.execute({part.strip()!r})" for part in step.split(";") if part.strip()] for step in STEPS]
    return {
        f"{name}_step.py": revision(name, names[index - 1] if index else None, *lines[index])
        for index, name in enumerate(names)
    }


_PRISMA_NAMES = ("20240101000000_first", "20240102000000_second", "20240103000000_third")
_SQL_NAMES = ("1_first.sql", "2_second.sql", "3_third.sql")
STOCKS = {
    "Prisma": Stock(
        tool="Prisma",
        files={f"{name}.sql": step for name, step in zip(_PRISMA_NAMES, STEPS, strict=True)},
        names=_PRISMA_NAMES,
        history=(
            "SELECT migration_name, count(*), bool_and(finished_at IS NOT NULL AND rolled_back_at IS NULL)"
            " FROM _prisma_migrations GROUP BY 1 ORDER BY 1"
        ),
        wanted=tuple((name, 1, True) for name in _PRISMA_NAMES),
    ),
    "Alembic": Stock(
        tool="Alembic",
        files=_alembic(),
        names=("r001", "r002", "r003"),
        history="SELECT version_num FROM alembic_version",
        wanted=(("r003",),),
    ),
    "SQL": Stock(
        tool="SQL",
        files=dict(zip(_SQL_NAMES, STEPS, strict=True)),
        names=_SQL_NAMES,
        history="SELECT 1",
        wanted=((1,),),
    ),
    "SQL, not transactional": Stock(
        tool="SQL",
        files=dict(zip(_SQL_NAMES, STEPS, strict=True)) | {"4_alone.sql": ALONE},
        names=(*_SQL_NAMES, "4_alone.sql"),
        history="SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('customer_name')",
        wanted=((True,),),
        alone="4_alone.sql",
    ),
}


def spec(stock: Stock, role: str, database: str) -> dict[str, Any]:
    """Return the spec of a resource; ConfigMaps are named by `config_map`."""
    return {
        "server": {"adminSecretRef": {"name": "admin"}},
        "role": {"name": role},
        "database": {"name": database},
        "extensions": [{"name": "pg_trgm"}],
        "migrations": {"tool": stock.tool, "source": {"configMapRefs": [{"name": config_map(stock)}]}},
        "seed": {"source": {"configMapRefs": [{"name": "seed"}]}, "ignoreTables": ["public.trace"]},
    }


def config_map(stock: Stock) -> str:
    """Return the name of the ConfigMap with the migrations."""
    return f"{stock.tool.lower()}-{len(stock.files)}"
