"""The operator's side of the sandbox: keeps one zygote, and has it run jobs without ever blocking the event loop."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator

from database_bootstrap.errors import InternalError
from database_bootstrap.tools.sandbox import scrub, wire

_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""The C library otherwise reserves 64 MiB of the limited address space for each thread."""
_PARTING_SECONDS = 15.0
"""For a run to be ended and cleared away once it is not wanted any more; the supervisor needs less."""


class Lost(Exception):
    """The process that ran a job is gone without a word."""


class Zygote:
    """The preloaded process, started by the first run or, better, by `start()` before any Secret is read.

    It is executed anew and not forked from the operator: none of the operator's memory is in it, whenever it starts.
    """

    def __init__(self, *, confined: bool = True, parallel: int = 8) -> None:
        """Confine revisions as well as the kernel can, or give them the reach of the operator."""
        self._confined = confined
        self._slots = asyncio.Semaphore(parallel)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the process unless it runs; return at once, while it is still loading."""
        if self._process is None or self._process.poll() is not None:
            self._discard()
            self._spawn()

    async def stop(self) -> None:
        """End all runs and the process."""
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None:
            await asyncio.to_thread(_wait_or_kill, process)

    async def run(self, job: wire.Job) -> AsyncGenerator[wire.Event, None]:
        """Run the job, and yield what it says; all texts are free of the password.

        Leaving the iteration early (`aclosing`) or cancelling the task ends the run: when this returns, its processes
        are gone. Raises `Lost` when they were killed from outside.
        """
        async with self._slots:
            run = await self._submit(job)
            try:
                async for line in run.lines():
                    event = wire.decode_event(line[1:], line[:1])
                    if event is not None:
                        yield scrub.event(event, job.password)
                    if isinstance(event, wire.Ended):
                        return
                raise Lost
            finally:
                await run.end()

    async def _submit(self, job: wire.Job) -> "_Connection":
        """Hand the job over; a zygote that has died since the last one is replaced once."""
        for last in (False, True):
            await self.start()
            run = _Connection()
            try:
                await self._order(run)
                await run.hand_over(job)
            except (OSError, EOFError):
                await run.end()
                reason = self._last_words()
                if last:
                    raise InternalError(f"The sandbox for Alembic does not start: {reason}") from None
            except BaseException:
                await run.end()
                raise
            else:
                return run
        raise AssertionError

    async def _order(self, run: "_Connection") -> None:
        control = self._control
        assert control is not None
        with run.theirs, run.secret_theirs:
            descriptors = [run.theirs.fileno(), run.secret_theirs.fileno()]
            while True:
                try:
                    socket.send_fds(control, [b"r"], descriptors)
                except BlockingIOError:
                    await asyncio.sleep(0.01)  # Many are in line while it loads.
                else:
                    return

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-m", "database_bootstrap.tools.sandbox.zygote"),
                    *(str(theirs.fileno()), str(os.getpid()), "confined" if self._confined else "unconfined"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, **_FEW_ARENAS},
                pass_fds=(theirs.fileno(),),
                # Ctrl-C is for the operator, which then ends the runs in order.
                start_new_session=True,
            )
        self._control = ours

    def _discard(self) -> None:
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _last_words(self) -> str:
        """Return why a run did not begin; where the whole process has ended, clear up after it."""
        words = b""
        try:
            if self._control is not None:
                words = self._control.recv(4096)
        except BlockingIOError:
            return "the run's process ended at once"
        except OSError:
            pass
        self._discard()
        return words.decode(errors="replace") or "its process ended"


class _Connection:
    """One run, as the operator sees it: a stream of lines that ends when everything of the run is gone."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._secret, self.secret_theirs = socket.socketpair()
        for each in (self._ours, self._secret):
            each.setblocking(False)
        self._buffer = b""

    async def hand_over(self, job: wire.Job) -> None:
        """Send the job, and its password once the child is there to read it."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._ours, wire.encode_job(job))
        async for _ in self.lines():
            break
        else:
            raise EOFError
        with self._secret:
            await loop.sock_sendall(self._secret, job.password.encode())

    async def lines(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                yield line
            part = await loop.sock_recv(self._ours, 65536)
            if not part:
                return
            self._buffer += part

    async def end(self) -> None:
        """Say that nothing more is wanted, and wait until nothing more is there."""
        self._secret.close()
        self.theirs.close()
        self.secret_theirs.close()
        loop = asyncio.get_running_loop()
        with self._ours, contextlib.suppress(OSError, TimeoutError):
            self._ours.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_PARTING_SECONDS):
                while await loop.sock_recv(self._ours, 65536):
                    pass


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PARTING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
