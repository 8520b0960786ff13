"""The command line: run | apply | plan | bundle | crd."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata
from pathlib import Path

import yaml

from database_bootstrap import settings
from database_bootstrap.api import names, schema
from database_bootstrap.bundles import configmaps
from database_bootstrap.errors import BootstrapError
from database_bootstrap.reconcile import Engine
from database_bootstrap.standalone import run
from database_bootstrap.standalone.console import Console, JsonConsole, TextConsole
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.run import Exit, Options

DESCRIPTION = "Bootstrap PostgreSQL databases: apply it a thousand times, restart anything, lose nothing."
EXAMPLES = """\
examples:
  database-bootstrap run --namespace shop                      the operator, for one namespace
  database-bootstrap plan -f shop.yaml                         what would be done; nothing is changed
  database-bootstrap apply -f shop.yaml -f secrets.yaml        the same bootstrap without a cluster
  database-bootstrap bundle prisma/migrations | kubectl apply -f -
  database-bootstrap crd | kubectl apply --server-side -f -
"""
FILES = """\
Files hold one or several documents: DatabaseBootstraps, and the Secrets and ConfigMaps that they refer to. Documents of
other kinds are ignored. Generated passwords, the Secrets for applications and the identity of each database are kept
in the folder --secret-dir and found there the next time.
"""
APPLY_EXITS = """\
exit codes:
  0   done           1  needs a person           2  bad input, nothing was touched
  75  try again later: the server is down, or something is not there yet

examples:
  database-bootstrap apply -f shop.yaml
  database-bootstrap apply -f bootstrap/ --wait 60 --output json
  kustomize build manifests/samples/shop | database-bootstrap apply -f - --secret-dir /var/lib/dbbootstrap
"""
PLAN_EXITS = """\
exit codes:
  0   planned        1  needs a person           2  bad input, or with --detailed-exitcode: something to do
  75  try again later: the server is down, or something is not there yet

example:
  database-bootstrap plan -f shop.yaml
"""
BUNDLE_EXAMPLES = """\
Prints ConfigMaps that hold the files of a directory: as plain keys where they fit, compressed where they do not, and
several where one is too small; migrations.source.configMapRefs then names them all.

examples:
  database-bootstrap bundle prisma/migrations --name shop-migrations --namespace shop | kubectl apply -f -
  database-bootstrap bundle alembic --name shop-migrations > migrations.yaml
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of one command."""
    chosen = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = chosen.command
    try:
        return command(chosen)
    except (InputError, BootstrapError) as error:
        print(f"database-bootstrap: {error}", file=sys.stderr)
        return Exit.BAD_INPUT
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
