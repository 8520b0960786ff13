"""Doors: refusals are counted for a namespace and a server, whatever the server is called and who asks."""

import asyncio
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

    def __init__(self) -> None:
        self.clock = Clock()
        self.doors = Doors(self.clock)
        self.tries: list[str] = []
        self.answers = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def log_in(self, password: str, namespace: str = "shop", host: str = "127.0.0.1", server: str = "") -> str:
        """Return how a login ended: in, refused by the server, or not even tried."""
        login = replace(LOGIN, password=password, server=server or None, endpoint=Endpoint(host=host))
        was_tried = False
        try:
            async with self.doors.at(namespace, login):
                was_tried = True
                await self._answer(password)
        except AdminLoginRefused:
            return "refused" if was_tried else "closed"
        except ServerUnreachable:
            return "unreachable"
        return "in"

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
