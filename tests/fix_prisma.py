"""The real Prisma Migrate: installed once with npm into the user's cache, run as an application would."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fix_servers import missing
from fix_tools import Workbench
from localservers import cache

PROJECT = Path(__file__).parent / "prisma"
SCHEMA = 'datasource db {\n  provider = "postgresql"\n  url = "postgresql://unused"\n}\n'
SECONDS = 240


@dataclass
class PrismaCommand:
    """`prisma` in a project of its own, against one database."""

    folder: Path
    workbench: Workbench
    schema: str = "public"

    def project(self, files: Mapping[str, str]) -> None:
        """Make these the project's migrations."""
        shutil.rmtree(self.folder / "migrations", ignore_errors=True)
        for path, content in {"migration_lock.toml": 'provider = "postgresql"\n', **files}.items():
            (self.folder / "migrations" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "migrations" / path).write_bytes(content.encode())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `prisma` and return how it ended."""
        absent = str(self.folder / "no-engine")
        return subprocess.run(
            ["node", "node_modules/prisma/build/index.js", *arguments],
            cwd=self.folder,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "DATABASE_URL": self.workbench.dsn(),
                "DATABASE_SCHEMA": self.schema,
                "CHECKPOINT_DISABLE": "1",
                "PRISMA_HIDE_UPDATE_MESSAGE": "1",
                # Named, the native engines are not fetched; with the driver adapter they are not used either.
                "PRISMA_QUERY_ENGINE_LIBRARY": absent,
                "PRISMA_SCHEMA_ENGINE_BINARY": absent,
            },
        )

    def succeed(self, *arguments: str) -> str:
        """Run `prisma`, insist that it succeeds, and return what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="session")
def prisma_packages(request: pytest.FixtureRequest) -> Path:
    """The folder node_modules with Prisma in it."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing(request.config, "PRISMA", "install Node.js 20 or newer with npm")
    lock = (PROJECT / "package-lock.json").read_bytes()
    target = cache.folder() / "prisma" / hashlib.sha256(lock).hexdigest()[:16]
    with cache.locked("prisma"):
        if not (target / "complete").exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PROJECT / name, target)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=target, check=False, capture_output=True, text=True, timeout=SECONDS)
            if done.returncode:
                missing(request.config, "PRISMA", f"npm ci failed: {done.stderr.strip()[-300:]}")
            (target / "complete").touch()
    return target / "node_modules"


@pytest.fixture
def make_prisma(prisma_packages: Path, tmp_path: Path) -> Callable[[Workbench], PrismaCommand]:
    """Return a function that makes a Prisma project for a database."""

    def make(workbench: Workbench) -> PrismaCommand:
        (tmp_path / "node_modules").symlink_to(prisma_packages)
        (tmp_path / "schema.prisma").write_text(SCHEMA)
        (tmp_path / "no-engine").touch(mode=0o755)
        shutil.copy(PROJECT / "prisma.config.ts", tmp_path)
        return PrismaCommand(folder=tmp_path, workbench=workbench)

    return make
