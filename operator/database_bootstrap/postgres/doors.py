"""Doors: how often a login that a server has refused may be tried again.

Whoever may write Secrets in a namespace can guess passwords in them, and have the operator try each. So a refusal is
remembered for the namespace and the place, however many resources and Secrets there are: until a delay is over, which
grows with each refusal, nobody of that namespace tries there again but with what was let in before, at that address.

A place is an address. What a name leads to is asked once, and the login then goes there: a tenant's own name could be
one address for the door, and a neighbour's server for the login.
"""

import asyncio
import hashlib
import ipaddress
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import psycopg

from database_bootstrap import errors
from database_bootstrap.postgres.login import Endpoint, Login
from database_bootstrap.postgres.sqlstates import refusal_of

FIRST_SECONDS = 0.7
LONGEST_SECONDS = 20.0
"""A little less than the queue waits, so that who comes in time is let through."""
FORGOTTEN_SECONDS = 900.0
"""A refusal that is so long ago counts no more."""
LIMIT = 4096
SAID_LIMIT = 64
ROLE_REFUSALS = 3
"""So many of a role's logins may be refused before a door closes: an edited password is, until it is set."""

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


@dataclass(slots=True)
class Entry:
    """One try of a login."""

    login: Login
    """With the addresses to which it is to go."""
    address: str | None = None
    """Which of them has let it in, as whoever tried it has found."""


Resolve = Callable[[Endpoint], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, or raises OSError or UnicodeError."""


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

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, resolve: Resolve | None = None, *, free: int = 0
    ) -> None:
        """Let so many be refused before a door closes."""
        self._clock = clock
        self._resolve = resolve or _resolve
        self._free = free
        self._doors: OrderedDict[Place, _Door] = OrderedDict()
        self._known: OrderedDict[tuple[bytes, Place], None] = OrderedDict()
        """Digests of logins, and where they were let in; with a key of this process, so that they tell nothing."""
        self._key = secrets.token_bytes(32)

    @asynccontextmanager
    async def at(self, namespace: str, login: Login) -> AsyncIterator[Entry]:
        """Let the caller try a login; raise `AdminLoginRefused` at once while the door is closed to it.

        Raise `ServerUnreachable` where the host has no address.
        """
        entry = Entry(login=replace(login, endpoint=await self._found(login)))
        whose = "" if login.server else namespace
        digest, places = self._digest(whose, login), _places(whose, entry.login.endpoint)
        doors = self._of(places)
        attempt = await self._turn(doors, login, digest)
        was_known = bool(self._known_at(digest, doors))
        try:
            yield entry
            self._know(digest, places, entry.address)
        except errors.AdminLoginRefused as error:
            if was_known and not error.is_password:
                raise  # No guess: pg_hba.conf may let the administrator into one database, and not into another.
            self._refuse(digest, doors, error.message)
            raise
        except errors.BootstrapError:
            attempt.was_answered = False
            raise
        finally:
            for door in doors.values():
                door.attempt = None if door.attempt is attempt else door.attempt
            attempt.over.set()

    async def _found(self, login: Login) -> Endpoint:
        endpoint = login.endpoint
        if endpoint.addresses:
            return endpoint
        try:
            found = await self._resolve(endpoint)
        except (OSError, UnicodeError) as error:
            unresolved = psycopg.OperationalError(f"failed to resolve host {endpoint.host!r}: {error}")
            raise refusal_of(unresolved, login) from None
        return replace(endpoint, addresses=tuple(dict.fromkeys(found)))

    async def _turn(self, doors: Mapping[Place, _Door], login: Login, digest: bytes) -> _Attempt:
        """Return once nobody else is trying, and the doors are open."""
        mine = _Attempt()
        while True:
            known = self._known_at(digest, doors)
            closed_ones = (door for place, door in doors.items() if place not in known and self._is_closed(door))
            if shut := next(closed_ones, None):
                raise errors.AdminLoginRefused(shut.said.get(digest) or closed(login))
            if known:
                return mine
            shy = (door.attempt for door in doors.values() if door.attempt and door.refusals >= self._free)
            under_way = next(shy, None)
            if under_way is None:
                for door in doors.values():
                    door.attempt = mine
                return mine
            await under_way.over.wait()
            if not under_way.was_answered:
                return mine  # A server that does not answer is waited for side by side.

    def _known_at(self, digest: bytes, places: Iterable[Place]) -> set[Place]:
        """Return where this login was let in before."""
        return {place for place in places if (digest, place) in self._known}

    def _is_closed(self, door: _Door) -> bool:
        return door.closed_until > self._clock()

    def _refuse(self, digest: bytes, doors: Mapping[Place, _Door], said: str) -> None:
        now = self._clock()
        for place, door in doors.items():
            self._known.pop((digest, place), None)
            door.refusals = 1 if now - door.last > FORGOTTEN_SECONDS else door.refusals + 1
            door.last = now
            door.said[digest] = said
            if len(door.said) > SAID_LIMIT:
                del door.said[next(iter(door.said))]
            if door.refusals > self._free:
                door.closed_until = now + delay(door.refusals - self._free)

    def _know(self, digest: bytes, places: Mapping[str, Place], address: str | None) -> None:
        for each, place in places.items():
            if each == address or len(places) == 1:
                self._known[digest, place] = None
                self._known.move_to_end((digest, place))
        while len(self._known) > LIMIT:
            self._known.popitem(last=False)

    def _of(self, places: Mapping[str, Place]) -> dict[Place, _Door]:
        for place in places.values():
            self._doors.setdefault(place, _Door())
            self._doors.move_to_end(place)
        found = {place: self._doors[place] for place in places.values()}
        while len(self._doors) > max(LIMIT, len(found)):
            self._doors.popitem(last=False)
        return found

    def _digest(self, whose: str, login: Login) -> bytes:
        # Tenants are told less of a refusal than whoever runs the server, so what is told to one is not to the other.
        said = (whose, login.server or "", str(login.endpoint), login.user, login.password)
        return hashlib.blake2b("\0".join(said).encode(), key=self._key).digest()


def _places(whose: str, endpoint: Endpoint) -> dict[str, Place]:
    """Return the place of each address."""
    return {address: (whose, _plain(address), endpoint.port) for address in endpoint.addresses}


async def _resolve(endpoint: Endpoint) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _plain(address: str) -> str:
    """Return the one way to write an address: `::ffff:192.0.2.1` is 192.0.2.1."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address  # With a scope, as fe80::1%eth0.
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return str(mapped or known)
