"""Doors: refusals are counted for a namespace and a server, whatever the server is called and who asks."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from database_bootstrap.errors import AdminLoginRefused, ServerUnreachable
from database_bootstrap.postgres.doors import LONGEST_SECONDS, Doors, delay
from database_bootstrap.postgres.login import Endpoint, Login

LOGIN = Login(endpoint=Endpoint(host="127.0.0.1"), user="admin", password="right", database="postgres")
Try = Callable[..., Awaitable[str]]


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Knows one password, and counts the logins that reach it."""

    def __init__(self, *, free: int = 0) -> None:
        self.clock = Clock()
        self.doors = Doors(self.clock, self._resolve, free=free)
        self.names = {"localhost": ["127.0.0.1"], "LOCALHOST": ["127.0.0.1"]}
        self.tries: list[str] = []
        self.lets_in_anybody = {"192.0.2.66"}
        """Addresses of a server in a tenant's hands."""
        self.answers = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def log_in(self, password: str, namespace: str = "shop", host: str = "127.0.0.1", server: str = "") -> str:
        """Return how a login ended: in, refused by the server, or not even tried."""
        login = replace(LOGIN, password=password, server=server or None, endpoint=Endpoint(host=host))
        was_tried = False
        try:
            async with self.doors.at(namespace, login) as entry:
                was_tried = True
                # As psycopg does: one address after the other, until one lets it in.
                inside = (each for each in entry.login.endpoint.addresses if each in self.lets_in_anybody)
                if (address := next(inside, None)) is None:
                    await self._answer(password)
                entry.address = address or entry.login.endpoint.addresses[-1]
        except AdminLoginRefused:
            return "refused" if was_tried else "closed"
        except ServerUnreachable:
            return "unreachable"
        return "in"

    async def _resolve(self, endpoint: Endpoint) -> list[str]:
        if endpoint.host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names.get(endpoint.host, [endpoint.host])

    async def _answer(self, password: str) -> None:
        self.tries.append(password)
        await self.gate.wait()
        if not self.answers:
            raise ServerUnreachable("no answer")
        if password != "right":
            raise AdminLoginRefused("refused")


@pytest.fixture
def server() -> Server:
    return Server()


async def test_refusals_do_not_grow_with_those_who_ask(server: Server) -> None:
    ends = await asyncio.gather(*(server.log_in(f"guess {n}") for n in range(50)))
    assert sorted(set(ends)) == ["closed", "refused"]
    assert len(server.tries) == 1
    for _ in range(600):
        server.clock.now += 1
        await asyncio.gather(*(server.log_in(f"guess {n}") for n in range(5)))
    assert len(server.tries) <= 6 + 600 / LONGEST_SECONDS


async def test_server_has_one_door_whatever_it_is_called(server: Server) -> None:
    assert await server.log_in("wrong", host="localhost") == "refused"
    assert await server.log_in("wrong", host="127.0.0.1") == "closed"
    assert await server.log_in("wrong", host="LOCALHOST") == "closed"
    assert await server.log_in("wrong", host="::ffff:127.0.0.1") == "closed"


async def test_name_that_leads_elsewhere_by_turns_is_no_way_around_the_door(server: Server) -> None:
    guesses = [f"guess {n}" for n in range(20)]
    server.names["evil"] = ["192.0.2.66"]
    assert [await server.log_in(guess, host="evil") for guess in guesses] == ["in"] * 20
    server.names["evil"] = ["192.0.2.1"]
    ends = [await server.log_in(guess, host="evil") for guess in guesses]
    assert ends == ["refused"] + ["closed"] * 19
    assert server.tries == guesses[:1]


async def test_name_of_two_addresses_is_no_way_around_the_door(server: Server) -> None:
    guesses = [f"guess {n}" for n in range(20)]
    server.names["evil"] = ["192.0.2.66", "192.0.2.1"]
    assert [await server.log_in(guess, host="evil") for guess in guesses] == ["in"] * 20
    server.lets_in_anybody.clear()
    ends = [await server.log_in(guess, host="evil") for guess in guesses]
    assert ends == ["refused"] + ["closed"] * 19


async def test_login_goes_where_the_door_was(server: Server) -> None:
    server.names["db"] = ["192.0.2.1", "192.0.2.1", "2001:db8::1"]
    async with server.doors.at("shop", replace(LOGIN, endpoint=Endpoint(host="db"))) as entry:
        assert entry.login.endpoint == Endpoint(host="db", addresses=("192.0.2.1", "2001:db8::1"))
    server.names["db"] = ["192.0.2.66"]
    async with server.doors.at("shop", entry.login) as again:
        assert again.login == entry.login, "what was found is not asked for again"


async def test_host_without_an_address_is_not_tried(server: Server) -> None:
    with pytest.raises(ServerUnreachable, match=r"No session at db\.invalid:5432 as admin: failed to resolve host"):
        async with server.doors.at("shop", replace(LOGIN, endpoint=Endpoint(host="db.invalid"))):
            pytest.fail("it was let through")


async def test_some_refusals_are_free_where_honest_ones_are() -> None:
    server = Server(free=3)
    ends = [await server.log_in(f"guess {n}") for n in range(8)]
    assert ends == ["refused"] * 4 + ["closed"] * 4
    assert await server.log_in("right") == "closed"
    server.clock.now += delay(1)
    assert await server.log_in("right") == "in"
    assert await server.log_in("wrong") == "refused"
    assert await server.log_in("right") == "in"


@pytest.mark.parametrize(("free", "passwords"), [(0, ["wrong", "right"]), (3, ["a", "b", "c", "d"])])
async def test_who_need_not_wait_for_the_end_of_another_try(free: int, passwords: list[str]) -> None:
    """What was let in before, and where some may be refused."""
    server = Server(free=free)
    assert await server.log_in("right") == "in"
    server.gate.clear()
    asked = [asyncio.create_task(server.log_in(password)) for password in passwords]
    async with asyncio.timeout(5):
        while len(server.tries) <= len(passwords):
            await asyncio.sleep(0)
        server.gate.set()
        await asyncio.gather(*asked)


async def test_another_namespace_and_another_port_have_doors_of_their_own(server: Server) -> None:
    assert await server.log_in("wrong") == "refused"
    assert await server.log_in("wrong", namespace="other") == "refused"
    assert await server.log_in("right", namespace="third") == "in"


async def test_all_tenants_of_an_offered_server_share_one_door(server: Server) -> None:
    assert await server.log_in("wrong", namespace="a", server="main") == "refused"
    assert await server.log_in("wrong", namespace="b", server="main") == "closed"
    # A tenant's guesses do not close it.
    other = Server()
    assert await other.log_in("wrong", namespace="a") == "refused"
    assert await other.log_in("right", namespace="a", server="main") == "in"


async def test_who_was_let_in_is_let_in_while_others_guess(server: Server) -> None:
    assert await server.log_in("right") == "in"
    assert await server.log_in("wrong") == "refused"
    assert await server.log_in("right") == "in"
    assert await server.log_in("wrong") == "closed", "a good login must not open the door to a bad one"


async def test_password_that_has_become_wrong_closes_the_door(server: Server) -> None:
    assert await server.log_in("right") == "in"
    server.answers = True
    login = LOGIN
    with pytest.raises(AdminLoginRefused):
        async with server.doors.at("shop", login):
            raise AdminLoginRefused("changed on the server")
    with pytest.raises(AdminLoginRefused, match="changed on the server"):
        async with server.doors.at("shop", login):
            pytest.fail("it was let through")
    server.clock.now += delay(1)
    assert await server.log_in("right") == "in"


async def test_database_that_lets_the_administrator_not_in_holds_up_nobody(server: Server) -> None:
    assert await server.log_in("right") == "in"
    with pytest.raises(AdminLoginRefused):
        async with server.doors.at("shop", LOGIN.to("another")):
            raise AdminLoginRefused("no line in pg_hba.conf", is_password=False)
    assert await server.log_in("right") == "in"
    assert await server.log_in("wrong") == "refused"


async def test_others_are_not_told_whose_login_was_refused(server: Server) -> None:
    await server.log_in("wrong")
    with pytest.raises(AdminLoginRefused) as told:
        async with server.doors.at("shop", replace(LOGIN, password="another")):
            pytest.fail("it was let through")
    assert told.value.message.startswith(f"{LOGIN.endpoint} has just refused another administrator's login")


async def test_what_is_told_of_a_refusal_stays_the_same(server: Server) -> None:
    for guess in ("one", "two"):
        with pytest.raises(AdminLoginRefused):
            async with server.doors.at("shop", replace(LOGIN, password=guess)):
                raise AdminLoginRefused(guess)
        server.clock.now += LONGEST_SECONDS
    assert await server.log_in("three") == "refused"
    for guess in ("one", "two"):
        with pytest.raises(AdminLoginRefused, match=guess):
            async with server.doors.at("shop", replace(LOGIN, password=guess)):
                pytest.fail("it was let through")


async def test_server_that_does_not_answer_is_waited_for_side_by_side(server: Server) -> None:
    server.answers = False
    server.gate.clear()
    asked = [asyncio.create_task(server.log_in(f"guess {n}")) for n in range(4)]
    while not server.tries:
        await asyncio.sleep(0)
    server.gate.set()
    assert await asyncio.wait_for(asyncio.gather(*asked), 5) == ["unreachable"] * 4
    server.answers = True
    assert await server.log_in("right") == "in"


async def test_login_that_is_given_up_lets_the_next_one_try(server: Server) -> None:
    server.gate.clear()
    first = asyncio.create_task(server.log_in("right"))
    while not server.tries:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(server.log_in("right"))
    await asyncio.sleep(0)
    first.cancel()
    server.gate.set()
    assert await asyncio.wait_for(second, 5) == "in"


def test_delay_grows_to_its_limit() -> None:
    delays = [delay(refusals) for refusals in range(1, 40)]
    assert delays == sorted(delays)
    assert delays[0] < 1
    assert max(delays) == LONGEST_SECONDS


async def test_refusal_of_long_ago_counts_no_more(server: Server) -> None:
    for _ in range(8):
        assert await server.log_in("wrong") == "refused"
        server.clock.now += LONGEST_SECONDS
    server.clock.now += 1000
    assert await server.log_in("wrong") == "refused"
    server.clock.now += delay(1)
    assert await server.log_in("right") == "in"
