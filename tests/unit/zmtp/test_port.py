"""One peer port for all shards: preambles, handing connections on, and hosts of older versions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
import uvloop
import zmq
from structlog.testing import capture_logs

import tools.muster.machine.zmtp.port.door
import tools.muster.machine.zmtp.port.knock
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router, own_user
from tools.muster.machine.zmtp.asking import asked_in_clear
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.port import preamble
from tools.muster.machine.zmtp.port.bound import Bound
from tools.muster.machine.zmtp.port.door import Door
from tools.muster.machine.zmtp.port.handing import Handed, Hands
from tools.muster.machine.zmtp.port.preamble import Code

SHARDS = 3


class World:
    """A host's port, the nodes that run, and what dials them. Nodes answer with their shard."""

    def __init__(self, folder: Path, *, own: bool = False, older: int | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.folder = folder
        self.own = own
        self.port = free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.nodes: dict[int, Router] = {}
        self.heard: list[bytes] = []
        self.dealers: list[Dealer] = []
        self.older: set[str] = set()
        bound = [(Bound(self.endpoint, own_user=own), 0)]
        if older is not None:
            bound.append((Bound(f"tcp://127.0.0.1:{self.port + older}", own_user=own), older))
        self.door = Door(self.loop, bound, SHARDS, Hands(self.path), structlog.get_logger("door"))

    def path(self, shard: int) -> str:
        return f"{self.folder}/peers-{shard}.sock"

    def start(self, shard: int, endpoint: str = "") -> Router:
        def receive(parts: list[bytes]) -> None:
            node.trust(parts[0])
            node.send([parts[0], b"%d heard %s" % (shard, parts[-1])])

        node = Router(
            self.loop, endpoint or f"handed://{self.path(shard)}", receive,
            LinkOptions(10, own_user=self.own), strangers=True)
        self.nodes[shard] = node
        return node

    def stop(self, shard: int) -> None:
        self.nodes.pop(shard).close()

    def dial(self, shard: int | None, **more: Callable[[str], None] | bool) -> Dealer:
        dealer = Dealer(
            self.loop, self.endpoint, b"d%d" % len(self.dealers), lambda parts: self.heard.append(parts[-1]),
            LinkOptions(10, own_user=self.own, shard=shard, older=self.older), **more)  # type: ignore[arg-type]
        self.dealers.append(dealer)
        return dealer

    async def says(self, dealer: Dealer, what: bytes, shard: int) -> None:
        await until(lambda: dealer.send([what]))
        await until(lambda: b"%d heard %s" % (shard, what) in self.heard)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def told(self, said: bytes) -> bytes:
        """What the port says to this until it closes the connection."""
        reader, writer = await self.connect()
        writer.write(said)
        found = b""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(reader.read(1000), 60):
                found += data
        writer.close()
        return found

    def close(self) -> None:
        for dealer in self.dealers:
            dealer.close()
        self.door.close()
        for node in self.nodes.values():
            node.close()


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = Path("/tmp", f"m-{os.getpid()}")
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(own_user, "BASE", str(folder))
    yield
    for left in folder.iterdir():
        left.rmdir()
    folder.rmdir()


def run(
    folder: Path, scenario: Callable[[World], Awaitable[None]], *, own: bool = False, older: int | None = None
) -> list[str]:
    """The reasons that the log gave."""
    async def main() -> None:
        world = World(folder, own=own, older=older)
        try:
            await scenario(world)
        finally:
            world.close()

    with capture_logs() as logs:
        uvloop.run(main())
    return [line["reason"] for line in logs]


# -- bytes


def test_a_preamble_says_its_shard_and_begins_nothing_else() -> None:
    assert preamble.wants(0x0102) == b"\x8dmst\x01\x00\x01\x02"
    assert preamble.wanted(preamble.wants(65_535)) == (65_535, Code.ASKS)
    for other in (b"\xff", b"\x16\x03", b"GET /"):
        assert not preamble.begins(other)
    assert all(preamble.begins(preamble.wants(1)[:size]) for size in range(1, preamble.SIZE + 1))


def test_another_version_is_known_as_one() -> None:
    newer = preamble.MAGIC + b"\x02\x00\x00\x01"
    assert preamble.wanted(newer) == (1, Code.VERSION)
    assert preamble.refusal(preamble.answer(Code.TAKEN, 1)) == ""
    for code in (Code.NOT_RUNNING, Code.NO_SHARD, Code.VERSION):
        assert preamble.refusal(preamble.answer(code, 1)) == preamble.WHY[code]


# -- handing on


@pytest.mark.parametrize("own", [False, True], ids=["by port", "own user"])
def test_each_shard_is_reached_by_one_port(tmp_path: Path, own: bool) -> None:
    async def scenario(world: World) -> None:
        for shard in range(SHARDS):
            world.start(shard)
        for shard in range(SHARDS):
            await world.says(world.dial(shard), b"a", shard)
        await world.says(world.dial(None), b"no preamble", 0)
        assert (await asyncio.to_thread(
            asked_in_clear, "127.0.0.1", world.port, b"0 joins", 20.0, "", own)).startswith(b"0 heard")

    assert run(tmp_path, scenario, own=own) == []


def test_http_and_garbage_are_the_first_shards(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.start(0)
        assert (await world.told(b"GET /version HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        await world.told(b"EHLO peer\r\n\r\n")

    assert run(tmp_path, scenario)[-1:] == ["it does not speak ZMTP"]


@pytest.mark.parametrize(("said", "answer"), [
    (preamble.wants(SHARDS), preamble.answer(Code.NO_SHARD, SHARDS)),
    (preamble.wants(65_535), preamble.answer(Code.NO_SHARD, 65_535)),
    (preamble.wants(1), preamble.answer(Code.NOT_RUNNING, 1)),
    (preamble.MAGIC + b"\x02\0\0\0", preamble.answer(Code.VERSION, 0)),
    (preamble.MAGIC + b"\x01\x07\0\0", preamble.answer(Code.VERSION, 0)),
])
def test_what_cannot_be_had_is_answered(tmp_path: Path, said: bytes, answer: bytes) -> None:
    async def scenario(world: World) -> None:
        world.start(0)
        assert await world.told(said) == answer

    assert run(tmp_path, scenario) == []


def test_a_dealer_knows_why(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.start(0)
        lost: list[str] = []
        away, none = world.dial(1), world.dial(SHARDS, lost=lost.append, redials=False)
        await until(lambda: lost)
        await until(lambda: away.trouble == preamble.WHY[Code.NOT_RUNNING])
        assert lost == [none.trouble] == [preamble.WHY[Code.NO_SHARD]]
        assert world.older == set()
        world.start(1)
        await world.says(away, b"now", 1)

    assert run(tmp_path, scenario) == []


def test_a_node_that_was_started_again_is_handed_connections_and_others_all_the_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for shard in range(2):
            world.start(shard)
        one = world.dial(1)
        await world.says(one, b"before", 1)
        for turn in range(3):
            world.stop(1)
            await until(lambda: not one.stands())
            await world.says(world.dial(0), b"others %d" % turn, 0)
            world.start(1)
            await world.says(one, b"after %d" % turn, 1)

    run(tmp_path, scenario)


def test_a_node_that_stands_still_holds_up_itself_only(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.start(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as frozen:
            frozen.bind(world.path(1))
            frozen.listen(1)
            answers: list[bytes] = []
            waiting = []
            while preamble.answer(Code.NOT_RUNNING, 1) not in answers:  # the kernel keeps some hundreds
                reader, writer = await world.connect()
                writer.write(preamble.wants(1))
                answers.append(await asyncio.wait_for(reader.readexactly(preamble.SIZE), 60))
                waiting.append(writer)
                assert len(waiting) < 5000
            await world.says(world.dial(0), b"a", 0)
        os.unlink(world.path(1))
        world.start(1)
        await world.says(world.dial(1), b"b", 1)
        for writer in waiting:
            writer.close()

    run(tmp_path, scenario)


def test_a_node_without_room_for_a_descriptor_says_so(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        taken: list[socket.socket] = []
        handed = Handed(world.loop, world.path(1), taken.append)
        hands = Hands(world.path)
        ours, theirs = socket.socketpair()
        assert hands.hand(1, theirs)
        await until(lambda: len(taken) == 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            with capture_logs() as logs:
                for _ in range(3):
                    assert hands.hand(1, theirs)
                await until(lambda: logs)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert hands.hand(1, theirs)
        await until(lambda: len(taken) == 2)
        assert [(line["event"], line["error"]) for line in logs] == [
            ("cannot accept a connection", "Too many open files")]
        for sock in (ours, theirs, *taken):
            sock.close()
        hands.close()
        handed.close()

    run(tmp_path, scenario)


# -- strangers


@pytest.mark.parametrize("said", [b"", preamble.MAGIC[:1], preamble.wants(1)[:-1]])
def test_one_that_does_not_finish_its_preamble_has_little_time(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.port.door, "HELLO_S", 0.2)

    async def scenario(world: World) -> None:
        world.start(0)
        for _ in range(3):
            assert await world.told(said) == b""
        assert world.door._callers == {}

    assert run(tmp_path, scenario) == ["no hello in time"], "each cause is told once"


def test_a_preamble_may_come_byte_by_byte_with_what_follows_behind_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.start(1)
        reader, writer = await world.connect()
        said = preamble.wants(1)
        for at in range(len(said) - 1):
            writer.write(said[at : at + 1])
            await until(lambda at=at: [caller.said for caller in world.door._callers.values()]
                        == [said[: at + 1]])
        writer.write(said[-1:] + b"GET /version HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(preamble.answer(Code.TAKEN, 1) + b"HTTP/1.1 200 OK")
        writer.close()

    run(tmp_path, scenario)


def test_one_that_only_begins_as_a_preamble_is_ended(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.start(0)
        reader, writer = await world.connect()
        writer.write(preamble.MAGIC[:2])
        await until(lambda: [caller.said for caller in world.door._callers.values()] == [preamble.MAGIC[:2]])
        writer.write(b"xx")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()

    assert run(tmp_path, scenario) == ["it does not speak ZMTP"]


def test_many_silent_ones_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.port.door, "MOST_STRANGERS", 5)

    async def scenario(world: World) -> None:
        world.start(2)
        silent = [await world.connect() for _ in range(20)]
        await until(lambda: len(world.door._callers) == 5)
        await world.says(world.dial(2), b"a", 2)
        for reader, writer in silent[:15]:
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
        for _, writer in silent[15:]:
            writer.close()

    assert run(tmp_path, scenario) == ["too many connections without a hello"]


# -- hosts of older versions


def test_an_older_host_is_dialled_at_its_shards_ports_and_at_one_port_once_it_is_new(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.door.close()  # instead of it nodes listen by themselves
        for shard in (0, 1):
            world.start(shard, f"tcp://127.0.0.1:{world.port + shard}")
        zero, one = world.dial(0), world.dial(1)
        await world.says(zero, b"a", 0)
        await world.says(one, b"a", 1)
        assert world.older == {world.endpoint}
        once: list[str] = []
        await world.says(world.dial(1, lost=once.append, redials=False), b"once", 1)
        assert once == []
        for shard in (0, 1):
            world.stop(shard)
        await until(lambda: not zero.stands() and not one.stands())
        bound = [(Bound(world.endpoint, own_user=False), 0)]
        world.door = Door(world.loop, bound, SHARDS, Hands(world.path), structlog.get_logger("door"))
        for shard in (0, 1):
            world.start(shard)
        await world.says(one, b"b", 1)
        await world.says(zero, b"b", 0)
        assert world.older == set()

    run(tmp_path, scenario)


def test_what_another_dealer_finds_out_meanwhile_does_not_change_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had connected to the one port left its preamble out there, and was at shard 0."""
    tried = Dealer._tried

    def found_meanwhile(dealer: Dealer) -> None:
        dealer._options.older.add(dealer._endpoint)
        tried(dealer)

    monkeypatch.setattr(Dealer, "_tried", found_meanwhile)

    async def scenario(world: World) -> None:
        for shard in (0, 1):
            world.start(shard)
        dealer = world.dial(1)
        await until(lambda: dealer.send([b"a"]))
        await until(lambda: world.heard)
        assert world.heard == [b"1 heard a"]

    run(tmp_path, scenario)


def test_a_closed_link_to_an_older_host_is_looked_at_anew(tmp_path: Path) -> None:
    """Its owner may have closed it because another shard's node answered."""
    async def scenario(world: World) -> None:
        world.start(1, f"tcp://127.0.0.1:{world.port + 1}")
        world.older.add(world.endpoint)
        dealer = world.dial(1)
        await world.says(dealer, b"a", 1)
        assert world.older == {world.endpoint}
        dealer.close()
        assert world.older == set()

    run(tmp_path, scenario)


@pytest.mark.parametrize("code", [None, Code.TAKEN, Code.NOT_RUNNING])
def test_with_keys_a_mere_close_shows_an_older_host_only_where_no_preamble_was_ever_answered(
    tmp_path: Path, code: Code | None
) -> None:
    async def scenario(world: World) -> None:
        said = [] if code is None else [preamble.answer(code, 1)]
        closed = [0]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(preamble.SIZE)
            if said:
                writer.write(said.pop())
            else:
                closed[0] += 1
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        endpoint = f"tcp://127.0.0.1:{port}"
        options = LinkOptions(10, keys=CurveKeys(*zmq.curve_keypair()), shard=1)
        troubles: list[str] = []
        dealer = Dealer(world.loop, endpoint, b"d", lambda parts: None, options, lost=troubles.append)
        if code is None:
            await until(lambda: dealer.address(b"") == f"127.0.0.1:{port + 1}")
        else:
            await until(lambda: closed[0] >= 2 and troubles[-1:] == ["connection closed"])
            assert (options.older, options.newer) == (set(), {endpoint})
        dealer.close()
        server.close()

    run(tmp_path, scenario)


def test_older_dealers_are_taken_at_the_ports_of_before(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for shard in range(SHARDS):
            world.start(shard)
        world.endpoint = f"tcp://127.0.0.1:{world.port + 2}"
        await world.says(world.dial(None), b"a", 2)

    assert run(tmp_path, scenario, older=2) == []


def test_a_port_of_something_else_is_no_older_host(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        said = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", preamble.MAGIC[:2]]

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(preamble.SIZE)
            writer.write(said[0])
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        world.endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        troubles = []
        while said:
            dealer = world.dial(1)
            await until(lambda dealer=dealer: dealer.trouble not in ("not tried yet", *troubles)
                        and not dealer.trouble.startswith("it accepts"))
            troubles.append(dealer.trouble)
            dealer.close()
            said.pop(0)
        server.close()
        assert troubles == ["it does not speak ZMTP", "connection closed", "it answered, but not as a peer"]
        assert world.older == set()

    run(tmp_path, scenario)


def test_one_that_says_nothing_at_all_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.port.knock, "HELLO_S", 0.1)

    async def scenario(world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            world.endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
            dealer = world.dial(1)
            await until(lambda: dealer.trouble == "no handshake in time")

    run(tmp_path, scenario)
