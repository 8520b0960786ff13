"""Doors: how often an administrator's login that a server has refused may be tried again.

Whoever may write Secrets in a namespace can guess passwords in them, and have the operator try each. So a refusal is
remembered for the namespace and the place, however many resources and Secrets there are: until a delay is over, which
grows with each refusal, nobody of that namespace tries there again but with what was let in before.
"""

import asyncio
import hashlib
import ipaddress
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from database_bootstrap import errors
from database_bootstrap.postgres.login import Endpoint, Login

FIRST_SECONDS = 0.7
LONGEST_SECONDS = 20.0
"""A little less than the queue waits, so that who comes in time is let through."""
FORGOTTEN_SECONDS = 900.0
"""A refusal that is so long ago counts no more."""
LIMIT = 4096
SAID_LIMIT = 64

Place = tuple[str, str, int]
"""Whose login (a namespace, or the empty text for the platform team's), an address and a port."""


def closed(login: Login) -> str:
    """Return what somebody is told whose own login was not tried."""
    pause = f"so that no other is tried there for up to {LONGEST_SECONDS:.0f} seconds; this one is then, by itself"
    if login.server:
        return f"DatabaseServer {login.server} has just refused a login of its administrator, {pause}"
    return (
        f"{login.endpoint} has just refused another administrator's login of this namespace, {pause}. The resource "
        "that is refused names the login to correct"
    )


def delay(refusals: int) -> float:
    """Return for how many seconds nobody tries after so many refusals."""
    return min(FIRST_SECONDS * 2.0 ** min(refusals - 1, 16), LONGEST_SECONDS)


class _Attempt:
    """One login that is under way, for whose end the others wait: each worker would have a try of its own otherwise."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.was_answered = True


@dataclass(slots=True)
class _Door:
    refusals: int = 0
    closed_until: float = 0.0
    last: float = 0.0
    said: dict[bytes, str] = field(default_factory=dict)
    """As what the refusal of each login was told: it stays the same while the door is closed to it."""
    attempt: _Attempt | None = None


class Doors:
    """All doors of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doors: OrderedDict[Place, _Door] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        """Digests of logins that were let in; with a key of this process, so that they tell nothing."""
        self._key = secrets.token_bytes(32)

    @asynccontextmanager
    async def at(self, namespace: str, login: Login) -> AsyncIterator[None]:
        """Let the caller try a login; raise `AdminLoginRefused` at once while the door is closed to it."""
        whose = "" if login.server else namespace
        digest = self._digest(whose, login)
        doors = [] if digest in self._known else self._of(await _places(whose, login.endpoint))
        attempt = await self._turn(doors, login, digest)
        try:
            yield
            self._know(digest)
        except errors.AdminLoginRefused as error:
            if digest in self._known and not error.is_password:
                raise  # No guess: pg_hba.conf may let the administrator into one database, and not into another.
            self._known.pop(digest, None)
            for door in doors or self._of(await _places(whose, login.endpoint)):
                self._close(door, digest, error.message)
            raise
        except errors.BootstrapError:
            attempt.was_answered = False
            raise
        finally:
            for door in doors:
                door.attempt = None if door.attempt is attempt else door.attempt
            attempt.over.set()

    async def _turn(self, doors: Sequence[_Door], login: Login, digest: bytes) -> _Attempt:
        """Return once nobody else is trying, and the doors are open."""
        mine = _Attempt()
        while doors and digest not in self._known:
            if shut := next((door for door in doors if door.closed_until > self._clock()), None):
                raise errors.AdminLoginRefused(shut.said.get(digest) or closed(login))
            under_way = next((door.attempt for door in doors if door.attempt), None)
            if under_way is None:
                for door in doors:
                    door.attempt = mine
                break
            await under_way.over.wait()
            if not under_way.was_answered:
                break  # A server that does not answer is waited for side by side.
        return mine

    def _close(self, door: _Door, digest: bytes, said: str) -> None:
        now = self._clock()
        door.refusals = 1 if now - door.last > FORGOTTEN_SECONDS else door.refusals + 1
        door.last = now
        door.said[digest] = said
        if len(door.said) > SAID_LIMIT:
            del door.said[next(iter(door.said))]
        door.closed_until = now + delay(door.refusals)

    def _know(self, digest: bytes) -> None:
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > LIMIT:
            self._known.popitem(last=False)

    def _of(self, places: Sequence[Place]) -> list[_Door]:
        for place in places:
            self._doors.setdefault(place, _Door())
            self._doors.move_to_end(place)
        found = [self._doors[place] for place in places]
        while len(self._doors) > max(LIMIT, len(places)):
            self._doors.popitem(last=False)
        return found

    def _digest(self, whose: str, login: Login) -> bytes:
        # Tenants are told less of a refusal than whoever runs the server, so what is told to one is not to the other.
        said = (whose, login.server or "", str(login.endpoint), login.user, login.password)
        return hashlib.blake2b("\0".join(said).encode(), key=self._key).digest()


async def _places(whose: str, endpoint: Endpoint) -> list[Place]:
    """Return the addresses behind the name: one server can have any number of names."""
    return [(whose, address, endpoint.port) for address in await _addresses(endpoint)]


async def _addresses(endpoint: Endpoint) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [endpoint.host.lower()]
    return sorted({_plain(str(address[0])) for *_, address in found})


def _plain(address: str) -> str:
    """Return the one way to write an address: `::ffff:192.0.2.1` is 192.0.2.1."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address  # With a scope, as fe80::1%eth0.
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return str(mapped or known)
