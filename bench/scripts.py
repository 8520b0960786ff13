"""The plain tool: psql scripts that run the statements that the operator runs, one resource after another."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from database_bootstrap.postgres import ledger
from database_bootstrap.postgres.ownership import Mark, Origin, Owner, with_mark
from localservers import Credentials, PostgresServer
from localservers.datadirs import scram_verifier

MIGRATIONS = {
    "20240101000000_users": """
        CREATE TABLE "User" (id SERIAL PRIMARY KEY, email TEXT NOT NULL, name TEXT, created TIMESTAMPTZ DEFAULT now());
        CREATE UNIQUE INDEX "User_email_key" ON "User" (email);
    """,
    "20240102000000_products": """
        CREATE TABLE "Product" (id SERIAL PRIMARY KEY, title TEXT NOT NULL, price NUMERIC(10, 2) NOT NULL, stock INT);
        CREATE INDEX "Product_title_idx" ON "Product" USING gin (title gin_trgm_ops);
    """,
    "20240103000000_orders": """
        CREATE TABLE "Order" (id SERIAL PRIMARY KEY, "userId" INT NOT NULL REFERENCES "User", placed TIMESTAMPTZ);
        CREATE TABLE "OrderItem" (id SERIAL PRIMARY KEY, "orderId" INT NOT NULL REFERENCES "Order",
                                  "productId" INT NOT NULL REFERENCES "Product", quantity INT NOT NULL);
        CREATE INDEX "OrderItem_orderId_idx" ON "OrderItem" ("orderId");
    """,
}
SEED = """
    INSERT INTO "User" (id, email, name) SELECT n, 'user' || n || '@example.com', 'User ' || n
    FROM generate_series(1, 100) n ON CONFLICT DO NOTHING;
    INSERT INTO "Product" (id, title, price, stock) SELECT n, 'Product ' || n, n, n FROM generate_series(1, 200) n
    ON CONFLICT DO NOTHING;
"""
_PRISMA_TABLE = """
    CREATE TABLE public._prisma_migrations (id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL,
    finished_at TIMESTAMPTZ, migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0);
"""


@dataclass(frozen=True)
class Script:
    """The psql sessions of one resource: as the administrator, as the administrator in the database, as the role."""

    name: str
    server: PostgresServer
    admin: Credentials
    password: str = "the bench's own"

    def run(self) -> None:
        """Run the three sessions, one after the other."""
        self._psql("postgres", self.admin, self._outside())
        self._psql(self.name, Credentials(user=self.name, password=self.password), self._as_role())
        self._psql(self.name, self.admin, self._inside())
        self._psql(self.name, Credentials(user=self.name, password=self.password), self._migrations())

    def _psql(self, database: str, who: Credentials, text: str) -> None:
        environment = {"PATH": os.environ["PATH"], **self.server.client_environment(database, who)}
        psql = self.server.installation.program("psql") or Path("psql")
        command = [str(psql), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull]
        subprocess.run(command, input=text, text=True, env=environment, check=True, timeout=120)

    def _comment(self) -> str:
        owner = Owner(cluster="bench", namespace="bench", name=self.name, uid="0")
        return with_mark(None, Mark(owner=owner, database=self.name, origin=Origin.CREATED)).replace("'", "''")

    def _outside(self) -> str:
        return f"""
            BEGIN;
            CREATE ROLE {self.name} LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS NOCREATEROLE NOCREATEDB
                PASSWORD '{scram_verifier(self.password)}';
            COMMENT ON ROLE {self.name} IS '{self._comment()}';
            COMMIT;
            CREATE DATABASE {self.name} OWNER {self.name} TEMPLATE template1 ENCODING 'UTF8';
        """

    def _as_role(self) -> str:
        return f"""
            BEGIN;
            COMMENT ON DATABASE {self.name} IS '{self._comment()}';
            REVOKE CONNECT, TEMPORARY ON DATABASE {self.name} FROM PUBLIC;
            COMMIT;
        """

    def _inside(self) -> str:
        return f"""
            BEGIN;
            CREATE SCHEMA dbbootstrap;
            {ledger.DDL};
            GRANT USAGE ON SCHEMA dbbootstrap TO {self.name};
            GRANT SELECT ON ALL TABLES IN SCHEMA dbbootstrap TO {self.name};
            GRANT SELECT ON ALL SEQUENCES IN SCHEMA dbbootstrap TO {self.name};
            GRANT INSERT ON dbbootstrap.migration, dbbootstrap.seed, dbbootstrap.audit_log TO {self.name};
            INSERT INTO dbbootstrap.identity (incarnation, cluster, namespace, name, uid, origin, database_oid)
                SELECT gen_random_uuid(), 'bench', 'bench', '{self.name}', '0', 'Created', oid FROM pg_database
                WHERE datname = current_database();
            COMMIT;
        """

    def _migrations(self) -> str:
        extensions = "".join(f'CREATE EXTENSION "{name}";\n' for name in extensions_of(self.server))
        applied = "".join(self._migration(name, text) for name, text in MIGRATIONS.items())
        return f"""
            {extensions}
            {_PRISMA_TABLE}
            {applied}
            BEGIN;
            {SEED}
            INSERT INTO dbbootstrap.seed (name, checksum, state, rows, incarnation)
                SELECT 'seed', 'x', 'seeded', 300, incarnation FROM dbbootstrap.identity;
            COMMIT;
        """

    def _migration(self, name: str, text: str) -> str:
        return f"""
            BEGIN;
            INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (gen_random_uuid(), 'x', '{name}');
            {text}
            UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE migration_name = '{name}';
            INSERT INTO dbbootstrap.migration (tool, name, state) VALUES ('Prisma', '{name}', 'applied');
            INSERT INTO dbbootstrap.audit_log (stage, action, actor) VALUES ('migrations', '{name}', 'bench');
            COMMIT;
        """


def extensions_of(server: PostgresServer) -> list[str]:
    """Return two extensions that the server has: uuid-ossp where there is one."""
    found = server.psql("SELECT name FROM pg_available_extensions WHERE name = 'uuid-ossp'", "-tA").strip()
    return ["pg_trgm", found or "citext"]


def resource(name: str, namespace: str, server: PostgresServer) -> str:
    """Return the resource that wants the same, as JSON."""
    files = [{"path": f"{migration}/migration.sql", "content": text} for migration, text in MIGRATIONS.items()]
    return json.dumps(
        {
            "apiVersion": "dbbootstrap.io/v1alpha1",
            "kind": "DatabaseBootstrap",
            "metadata": {"name": name.replace("_", "-"), "namespace": namespace},
            "spec": {
                "server": {"adminSecretRef": {"name": "admin"}},
                "role": {"name": name},
                "database": {"name": name},
                "extensions": [{"name": extension} for extension in extensions_of(server)],
                "migrations": {"tool": "Prisma", "source": {"inline": files}},
                "seed": {"source": {"inline": [{"path": "seed.sql", "content": SEED}]}},
                "intervalSeconds": 600,
            },
        }
    )
