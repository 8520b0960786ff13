"""The command line: run | apply | plan | bundle | crd."""

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata
from pathlib import Path

from database_bootstrap import logs, settings
from database_bootstrap.api import names, schema
from database_bootstrap.bundles import configmaps
from database_bootstrap.errors import BootstrapError
from database_bootstrap.postgres import polling
from database_bootstrap.reconcile import Engine
from database_bootstrap.settings import Sandbox, SandboxMode
from database_bootstrap.standalone import console, manifests, run
from database_bootstrap.standalone.collection import CLUSTER, NAME_LENGTH, is_namespace, is_object_name
from database_bootstrap.standalone.console import Console, JsonConsole, TextConsole
from database_bootstrap.standalone.documents import InputError
from database_bootstrap.standalone.run import Exit, Options, Work
from database_bootstrap.tools.sandbox import confinement, level

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
Files hold one or several documents: DatabaseBootstraps, and the DatabaseServers, Secrets and ConfigMaps that they refer
to. Documents of other kinds are ignored. Generated passwords, the Secrets for applications and the identity of each
database are kept in the folder --secret-dir and found there the next time.
"""
ENVIRONMENT = """\
Each option can come from the environment as well, as DBBOOTSTRAP_ and its name: DBBOOTSTRAP_LOG_LEVEL=DEBUG. What the
command line says comes first. The namespace of the Lease is POD_NAMESPACE where nothing else is said.
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
several (NAME-1, NAME-2) where one is too small; source.configMapRefs must then list them all. A .csv file that is too
large for one is cut between its rows into `schema.table.part-N.csv`. Their label lets the operator act as soon as they
change, and their annotation keeps it from using some of them without the others.

examples:
  database-bootstrap bundle prisma/migrations --name shop-migrations --namespace shop | kubectl apply -f -
  database-bootstrap bundle alembic --name shop-migrations > migrations.yaml
  database-bootstrap bundle seed --name shop-seed | kubectl apply --server-side -f -
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of one command."""
    return polling.end(_carry_out(_parser().parse_args(arguments)))


def _carry_out(chosen: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = chosen.command
    try:
        return command(chosen)
    except (InputError, BootstrapError) as error:
        return _refused(error, Exit.BAD_INPUT)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="database-bootstrap",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=metadata.version(names.OPERATOR))
    commands = parser.add_subparsers(title="commands", required=True, metavar="run | apply | plan | bundle | crd")
    _add_run(_command(commands, "run", _run, "be the operator of a cluster", ENVIRONMENT))
    _add_apply(_command(commands, "apply", _apply, "do the same bootstrap from files, without a cluster", APPLY_EXITS))
    _add_plan(_command(commands, "plan", _plan, "say what apply would do, and change nothing", PLAN_EXITS))
    _add_bundle(
        _command(commands, "bundle", _bundle, "print ConfigMaps with the files of a directory", BUNDLE_EXAMPLES)
    )
    _add_crd(_command(commands, "crd", _crd, "print the CustomResourceDefinitions", ""))
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    function: Callable[[argparse.Namespace], int],
    about: str,
    epilog: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=about, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(command=function)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    settings.add_arguments(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description}\n\n{FILES}"
    add = parser.add_argument
    add("-f", "--file", action="append", required=True, metavar="FILE", help="a file, a directory, or - ; repeatable")
    add("--secret-dir", type=Path, metavar="DIR", help="(default: .dbbootstrap beside the file)")
    add("--no-secret-dir", action="store_true", help="keep nothing; then role.passwordSecretRef is required")
    about = f"the cluster in marks of ownership (default: {CLUSTER})"
    add("--cluster-id", type=settings.cluster_id, default=CLUSTER, metavar="ID", help=about)
    settings.add_sandbox_arguments(parser, default="Sandboxed where the kernel can, else Unconfined")
    add("--output", choices=("text", "json"), default="text", help="lines for people, or an object a line")


def _add_apply(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument(
        "--wait",
        type=settings.seconds,
        default=0.0,
        metavar="SECONDS",
        help="go on trying for so long what may heal by itself",
    )


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit with 2 where there is something to do")


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--name", type=_bundle_name, help="of the ConfigMap (default: after the directory)")
    parser.add_argument("--namespace", type=_namespace, help="(default: none, so that kubectl's applies)")


def _add_crd(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", choices=(names.PLURAL, names.SERVER_PLURAL), help="(default: both)")


def _run(chosen: argparse.Namespace) -> int:
    # kopf and the Kubernetes client take a second to import, and no other command needs them.
    from database_bootstrap.controller import main as controller  # noqa: PLC0415

    try:
        wanted = settings.from_arguments(chosen, os.environ)
    except ValueError as error:
        raise InputError(str(error)) from None
    return controller.run(wanted)


def _apply(chosen: argparse.Namespace) -> int:
    options = _options(chosen, wait_seconds=chosen.wait, writes=True)
    _log_trouble()
    confinement.hide()
    work = run.prepare(options)
    sandbox = _sandbox(chosen, work)
    return asyncio.run(_with_engine(work, sandbox, lambda engine: run.apply(engine, work, options, _console(chosen))))


def _plan(chosen: argparse.Namespace) -> int:
    detailed: bool = chosen.detailed_exitcode
    _log_trouble()
    confinement.hide()
    try:
        work = run.prepare(_options(chosen))
    except InputError as error:
        # With that flag 2 is no mistake, so a mistake must not be 2.
        return _refused(error, Exit.STALLED if detailed else Exit.BAD_INPUT)
    told, sandbox = _console(chosen), _sandbox(chosen, work)
    return asyncio.run(_with_engine(work, sandbox, lambda engine: run.plan(engine, work, told, tell_changes=detailed)))


def _sandbox(chosen: argparse.Namespace, work: Sequence[Work]) -> Sandbox:
    """Return what confines revisions: here they are the user's own, and are not refused for the kernel's sake.

    Whoever asks for the sandbox gets it or nothing.
    """
    there = level.available().abi > 0
    try:
        sandbox = settings.sandbox_from_arguments(
            chosen, os.environ, SandboxMode.SANDBOXED if there else SandboxMode.UNCONFINED
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    if sandbox.mode is SandboxMode.UNCONFINED and any(one.uses_alembic for one in work):
        console.note("Alembic's revisions are not confined: they run with all your rights, as `alembic upgrade` does.")
    return sandbox


async def _with_engine(work: Sequence[Work], sandbox: Sandbox, act: Callable[[Engine], Awaitable[int]]) -> int:
    """Return what the act returns, or 143 where SIGTERM came first: as Ctrl-C does, it rolls back what has begun."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel, signal.SIGTERM)
    engine = Engine(sandbox=sandbox)
    # The process for Alembic takes a second to load. It is executed anew: what was read here is not in it.
    if any(one.uses_alembic for one in work):
        await engine.start()
    try:
        return await act(engine)
    except asyncio.CancelledError as stopped:
        if stopped.args != (signal.SIGTERM,):
            raise
        return 128 + signal.SIGTERM
    finally:
        await engine.stop()


def _log_trouble() -> None:
    """Let be said beside the run's own output what no stage says."""
    logs.set_up("WARNING", "text", sys.stderr)
    # Of a server that is away the stages tell, and nobody here goes on asking, but with --wait.
    logging.getLogger("database_bootstrap.postgres.server").setLevel(logging.ERROR)


def _options(chosen: argparse.Namespace, *, wait_seconds: float = 0.0, writes: bool = False) -> Options:
    return Options(
        sources=chosen.file,
        secret_dir=chosen.secret_dir,
        keep=not chosen.no_secret_dir,
        writes=writes,
        wait_seconds=wait_seconds,
        cluster_id=chosen.cluster_id,
    )


def _console(chosen: argparse.Namespace) -> Console:
    return JsonConsole() if chosen.output == "json" else TextConsole()


def _bundle(chosen: argparse.Namespace) -> int:
    name = chosen.name or _name_after(chosen.directory)
    labels = {names.LABEL_WATCH: "true"}
    made = configmaps.config_maps_of(chosen.directory, name, chosen.namespace, labels, names.ANNOTATION_BUNDLE)
    manifests.write(made, sys.stdout)
    if len(made) > 1:
        listed = ", ".join(f"{{name: {one['metadata']['name']}}}" for one in made)
        console.note(f"One ConfigMap is too small. The resource must list them all: configMapRefs: [{listed}]")
    if any(map(configmaps.is_too_large_for_client_side_apply, made)):
        console.note("Apply with `kubectl apply --server-side -f -`: without, kubectl keeps a copy that is too large.")
    return Exit.DONE


def _crd(chosen: argparse.Namespace) -> int:
    sys.stdout.write(schema.render_one(f"{chosen.kind}.{names.GROUP}") if chosen.kind else schema.render())
    return Exit.DONE


def _refused(error: Exception, code: Exit) -> Exit:
    print(f"database-bootstrap: {error}", file=sys.stderr)
    return code


def _bundle_name(text: str) -> str:
    if not is_object_name(text) or len(text) > NAME_LENGTH - len("-9999"):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a ConfigMap")
    return text


def _namespace(text: str) -> str:
    if not is_namespace(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a namespace")
    return text


def _name_after(directory: Path) -> str:
    """Return a name for the ConfigMap, such as `prisma-migrations` for prisma/migrations."""
    words = re.findall(r"[a-z0-9]+", "-".join(directory.resolve().parts[-2:]).lower())
    return "-".join(words)[:200].rstrip("-") or "bundle"
