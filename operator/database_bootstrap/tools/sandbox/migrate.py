"""`alembic upgrade heads`, with a lock, a ledger row per revision, and word of each step."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from database_bootstrap.tools.sandbox import guard, wire


class Run:
    """One run, and how far it has come."""

    def __init__(self, job: wire.Job, project: Path, url: str, emit: Callable[[wire.Event], None]) -> None:
        self._job = job
        self._project = project
        self._url = url
        self._guard = guard.Guard(job, url, emit)

    @property
    def running(self) -> str | None:
        """The revision that runs, or ran last."""
        return self._guard.running

    def to_heads(self) -> None:
        """Bring the database to all heads; raise what the project raises."""
        root = self._project / self._job.project.root
        sys.path.insert(0, str(root))
        self._guard.install()
        config = self._config(root)
        if self._job.project.environment is None:
            self._without_environment(config)
        else:
            command.upgrade(config, "heads")

    def _config(self, root: Path) -> Config:
        project = self._job.project
        file = self._project / project.config if project.config else root / "alembic.ini"
        config = Config(str(file), toml_file=str(self._project / project.toml) if project.toml else None)
        config.set_main_option("sqlalchemy.url", self._url.replace("%", "%%"))
        if project.script_location is not None:
            location = str(self._project / project.script_location)
            config.set_main_option("script_location", location.replace("%", "%%"))
        return config

    def _without_environment(self, config: Config) -> None:
        """Do what the plainest env.py does, with a transaction per revision: a failure keeps what came before it."""
        sys.path[:0] = config.get_prepend_sys_paths_list() or []
        script = ScriptDirectory(
            str(self._project),
            version_locations=[str(self._project / each) for each in self._job.project.version_locations],
            recursive_version_locations=self._job.project.recursive,
        )
        engine = sqlalchemy.create_engine(self._url, poolclass=sqlalchemy.pool.NullPool)

        def upgrade(heads: Any, context: Any) -> Any:
            return script._upgrade_revs("heads", heads)

        with (
            EnvironmentContext(config, script, fn=upgrade, destination_rev="heads") as environment,
            engine.connect() as c,
        ):
            environment.configure(connection=c, transaction_per_migration=True)
            with environment.begin_transaction():
                environment.run_migrations()
