"""CURVE: with libzmq as partner and with ourselves, with other keys, and frames that an enemy changed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import uvloop
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from structlog.testing import capture_logs
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

import tools.muster.machine.zmtp.router
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router, hint_of
from tools.muster.machine.zmtp.asking import Untrusted, asked_in_clear, asked_with_keys
from tools.muster.machine.zmtp.codec import COMMAND, LONG, Broken, Decoder, frame_head, greeting
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.curve.mechanism import CurveDecoder
from tools.muster.machine.zmtp.hints import NO_ANSWER, NO_KEY


def pair(*others: bytes) -> CurveKeys:
    return CurveKeys(*zmq.curve_keypair(), others=others)


class World:
    """A router with a key that answers, and dealers."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.keys = pair()
        self.port = free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.came: list[list[bytes]] = []
        self.heard: list[bytes] = []
        self.routers: list[Router] = []
        self.sockets: list[Any] = []

    def router(self, keys: CurveKeys | None = None) -> Router:
        def receive(parts: list[bytes]) -> None:
            made.trust(parts[0])
            self.came.append(parts)
            made.send([parts[0], b"heard", parts[-1]])

        made = Router(
            self.loop, self.endpoint, receive, LinkOptions(100, keys=keys or self.keys), strangers=True)
        self.routers.append(made)
        return made

    def dealer(self, keys: CurveKeys | None = None, **more: Any) -> Dealer:
        made = Dealer(
            self.loop, self.endpoint, b"d%d" % len(self.sockets), lambda parts: self.heard.append(parts[-1]),
            LinkOptions(100, keys=keys or self.keys), **more)
        self.sockets.append(made)
        return made

    async def says(self, dealer: Dealer, what: bytes) -> None:
        await until(lambda: dealer.send([what]))
        await until(lambda: what in self.heard)

    async def told(self, said: bytes) -> None:
        """Say this, and see the connection ended."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(said)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 60)
        writer.close()

    def close(self) -> None:
        for made in (*self.routers, *self.sockets):
            made.close()


def run(scenario: Callable[[World], Awaitable[None]]) -> list[str]:
    """The reasons that were logged."""

    async def main() -> None:
        world = World()
        try:
            await scenario(world)
        finally:
            world.close()

    with capture_logs() as logs:
        uvloop.run(main())
    return [line["reason"] for line in logs]


# -- libzmq

BIG = bytes(range(256)) * 12_000


def test_libzmqs_dealer_and_our_router() -> None:
    async def scenario(world: World) -> None:
        router = world.router()
        with zmq.Context() as context, context.socket(zmq.DEALER) as partner:
            partner.linger = 0
            partner.routing_id = b"libzmq"
            partner.curve_publickey, partner.curve_secretkey = world.keys.public, world.keys.secret
            partner.curve_serverkey = world.keys.public
            partner.setsockopt(zmq.HEARTBEAT_IVL, 20)  # it ends a partner that leaves one unanswered
            partner.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
            partner.connect(world.endpoint)
            partner.send(b"one")
            await until(lambda: len(world.came) == 1)
            partner.send_multipart([b"two", b"", BIG])
            await until(lambda: len(world.came) == 2)
            assert world.came == [[b"libzmq", b"one"], [b"libzmq", b"two", b"", BIG]]
            answers = [await asyncio.to_thread(partner.recv_multipart) for _ in range(2)]
            assert answers == [[b"heard", b"one"], [b"heard", BIG]]
            await asyncio.sleep(0.3)  # some heartbeats
            assert router.send([b"libzmq", b"three"])
            assert await asyncio.to_thread(partner.recv_multipart) == [b"three"]

    assert run(scenario) == []


def test_our_dealer_and_libzmqs_router() -> None:
    async def scenario(world: World) -> None:
        with zmq.Context() as context:
            auth = ThreadAuthenticator(context)
            auth.start()
            auth.configure_curve_callback(credentials_provider=Allowed(world.keys.public))
            partner = context.socket(zmq.ROUTER)
            partner.linger = 0
            partner.curve_server = True
            partner.curve_publickey, partner.curve_secretkey = world.keys.public, world.keys.secret
            partner.bind(world.endpoint)
            echo = threading.Thread(target=lambda: [
                partner.send_multipart(partner.recv_multipart()) for _ in range(3)])
            echo.start()
            dealer = world.dealer()
            for what in (b"one", b"", BIG):
                await world.says(dealer, what)
            await asyncio.to_thread(echo.join)
            dealer.close()
            stranger = world.dealer(pair(world.keys.public))
            await until(lambda: stranger.trouble == NO_KEY)
            other = world.dealer(pair())
            await until(lambda: other.trouble == NO_KEY)
            stranger.close()
            other.close()
            partner.close()
            auth.stop()

    run(scenario)


class Allowed:
    def __init__(self, public: bytes) -> None:
        self._public = z85.decode(public)

    def callback(self, domain: str, key: bytes) -> bool:
        return z85.decode(key) == self._public


# -- ourselves


def test_a_dealer_says_that_it_is_there() -> None:
    async def scenario(world: World) -> None:
        opened: list[bool] = []
        world.router()
        dealer = world.dealer(opened=lambda: opened.append(dealer.send([b"hello"])))
        await until(lambda: world.heard == [b"hello"])
        assert (opened, dealer.trouble) == ([True], "")
        for size in (0, 1, 222, 223, 65_535, 65_536, 5_000_000):
            await world.says(dealer, bytes(size) + b"x")

    assert run(scenario) == []


def test_nobody_there_another_key_and_no_key_are_told_apart() -> None:
    async def scenario(world: World) -> None:
        dealer = world.dealer()
        await until(lambda: dealer.trouble == "Connection refused")
        router = world.router(pair())
        await until(lambda: dealer.trouble == NO_KEY)
        assert hint_of(dealer.trouble) == "every host needs the same --peer-key-file"
        clear = Dealer(world.loop, world.endpoint, b"c", lambda parts: None, LinkOptions(10))
        await until(lambda: "CURVE" in clear.trouble)
        assert hint_of(clear.trouble) == "either every host has a --peer-key-file, or none"
        clear.close()
        router.close()
        router = Router(world.loop, world.endpoint, lambda parts: None, LinkOptions(10), strangers=True)
        await until(lambda: "NULL" in dealer.trouble)
        assert hint_of(dealer.trouble) == "either every host has a --peer-key-file, or none"
        router.close()
        world.router()
        await until(lambda: not dealer.trouble)

    # of the router with another key, and of the one without
    assert run(scenario) == [
        NO_KEY, "it wants security mechanism NULL, and there is a peer key here",
        "it wants security mechanism CURVE, and there is no peer key here"]


def test_while_keys_change_a_dealer_finds_the_one_that_a_router_serves_with() -> None:
    """And the router lets in who shows the next one."""

    async def scenario(world: World) -> None:
        old, new = world.keys, zmq.curve_keypair()
        world.keys._take(old.public, old.secret, [new[0]])  # of both, the old one in use
        world.router()
        changed = CurveKeys(*new, others=[old.public])
        dealer = world.dealer(changed)
        await world.says(dealer, b"hello")
        again = world.dealer(changed)  # it knows by now, of every socket
        await until(lambda: not again.trouble)
        lost: list[str] = []
        for keys in (CurveKeys(*new, others=[old.public]), pair(new[0])):
            once = world.dealer(keys, lost=lost.append, redials=False)
            await until(lambda once=once: not once.trouble or bool(lost))  # type: ignore[misc]
        assert lost == [NO_KEY], "the first one is there at its second try"
        stranger = world.dealer(pair(old.public))
        await until(lambda: stranger.trouble == NO_KEY)
        told = await asyncio.to_thread(
            asked_with_keys, "127.0.0.1", world.port, CurveKeys(*new, others=[old.public]), b"heard?", 20.0)
        assert told == b"heard?"
        with pytest.raises(Untrusted, match=NO_KEY):
            await asyncio.to_thread(asked_with_keys, "127.0.0.1", world.port, pair(), b"h", 20.0)

    run(scenario)


def test_a_question_that_is_refused_tells_why() -> None:
    """A host that was to join was told of the same as of dead hosts."""

    async def scenario(world: World) -> None:
        router = world.router()
        for ask, reason in (
            (partial(asked_with_keys, keys=pair()), NO_KEY),
            (asked_in_clear, "it wants security mechanism CURVE, and there is no peer key here"),
        ):
            with pytest.raises(Untrusted, match=reason):
                await asyncio.to_thread(ask, "127.0.0.1", world.port, question=b"h", limit_s=20.0)
        router.close()
        assert await asyncio.to_thread(asked_in_clear, "127.0.0.1", world.port, b"h", 20.0) == b""

    run(scenario)


# -- strangers

GREETING = greeting(b"CURVE")


def command(body: bytes) -> bytes:
    return bytes((COMMAND | LONG,)) + len(body).to_bytes(8, "big") + body


@pytest.mark.parametrize(("said", "reason"), [
    (GREETING + command(bytes(1 << 20))[:5000], "a message is too large"),
    (GREETING + frame_head(10, False) + bytes(10), "it did not say READY"),
    (GREETING + command(b"\x05HELLO\x01\0" + bytes(192)), NO_KEY),
    (GREETING + command(b"\x05HELLO\x02\0" + bytes(192)), "it speaks another version of CurveZMQ"),
    (GREETING + command(b"\x05HELLO\x01\0" + bytes(191)), "it does not speak CurveZMQ"),
    (GREETING + command(b"\x08INITIATE" + bytes(500)), "it does not speak CurveZMQ"),
    (GREETING + command(b"\x05READY"), "it does not speak CurveZMQ"),
    (greeting(b"PLAIN"), "it wants security mechanism PLAIN, and there is a peer key here"),
    (b"GET /members HTTP/1.1\r\n\r\n", "it does not speak ZMTP"),
])
def test_one_without_the_key_learns_nothing_and_ends(said: bytes, reason: str) -> None:
    async def scenario(world: World) -> None:
        world.router()
        for _ in range(3):
            await world.told(said)
        await world.says(world.dealer(), b"a key holder")

    assert run(scenario) == [reason], "each cause is told once"


@pytest.mark.parametrize("said", [b"", GREETING[:20], GREETING])
def test_a_stranger_has_a_moment_and_a_key_holder_has_not(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.muster.machine.zmtp.router, "HELLO_S", 0.3)

    async def scenario(world: World) -> None:
        world.router()
        holder = world.dealer()
        await world.says(holder, b"hello")
        await world.told(said)
        await world.says(holder, b"still there")

    assert run(scenario) == ["no hello in time"]


# -- bytes


class Both:
    """Two ends without sockets, ready for messages."""

    def __init__(self) -> None:
        keys = pair()
        (served_by,) = keys.all
        self.client = CurveDecoder(b"DEALER", keys, served_by, b"me")
        self.server = CurveDecoder(b"ROUTER", keys)
        self.commands = [self.client.greeting, self.server.greeting]
        assert self.client.feed(self.server.greeting) == self.server.feed(self.client.greeting) == []
        for to, by in ((self.server, self.client), (self.client, self.server)) * 2:
            said = bytes(by.pongs)
            by.pongs.clear()
            self.commands.append(said)
            assert to.feed(said) == []
        assert self.client.ready
        assert self.server.ready
        assert self.server.identity == b"me"

    def sealed(self, part: bytes) -> bytes:
        assert self.client.seal is not None
        return self.client.seal(0, part)


def test_a_repeated_frame_opens_nothing() -> None:
    both = Both()
    first, second, third = both.sealed(b"1"), both.sealed(b"2"), both.sealed(b"3")
    assert both.server.feed(first + third) == [[b"1"], [b"3"]]
    for repeated in (third, second):
        with pytest.raises(Broken, match="repeated, or is out of order"):
            both.server.feed(repeated)


def test_a_frame_of_the_other_direction_or_link_opens_nothing() -> None:
    one, other, third = Both(), Both(), Both()
    assert one.server.seal is not None
    one.server.seal(0, b"a later nonce than the client's last one")
    for to, foreign in ((one, one.server.seal(0, b"x")), (third, other.sealed(b"x"))):
        with pytest.raises(Broken, match="changed on its way"):
            to.server.feed(foreign)


@pytest.mark.parametrize("clear", [
    frame_head(40, False) + bytes(40), bytes((COMMAND, 8)) + b"\x04PING\0\0x", frame_head(1, True) + b"x",
    frame_head(8, False) + b"\x07MESSAGE", b"\x04\x07\x05ERROR\0",
])
def test_after_the_handshake_nothing_counts_in_clear(clear: bytes) -> None:
    with pytest.raises(Broken, match="not sealed"):
        Both().server.feed(clear)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_a_changed_or_cut_frame_opens_nothing(part: bytes, data: st.DataObject) -> None:
    both = Both()
    frame = bytearray(both.sealed(part))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    try:
        assert both.server.feed(bytes(frame)) == []  # the frame's length is changed: the rest is waited for
        assert at < 9
    except Broken:
        pass
    with pytest.raises(Broken):
        Both().server.feed(frame_head(len(both.sealed(part)) - 3, False) + both.sealed(part)[2:-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.data())
def test_a_changed_handshake_opens_nothing(which: int, data: st.DataObject) -> None:
    keys = pair()
    client = CurveDecoder(b"DEALER", keys, keys.all[0], b"me")
    server = CurveDecoder(b"ROUTER", keys)
    client.feed(server.greeting)
    server.feed(client.greeting)
    ended = False
    for turn, (to, by) in enumerate(((server, client), (client, server)) * 2):
        said = bytearray(by.pongs)
        by.pongs.clear()
        if turn == which:
            skipped = range(10, 82) if which == 0 else range(0)  # HELLO's padding means nothing
            at = data.draw(st.integers(2, len(said) - 1).filter(lambda at, s=skipped: at not in s))
            said[at] ^= data.draw(st.integers(1, 255))
        try:
            to.feed(bytes(said))
        except Broken:
            ended = True
            break
    # a command whose length was changed is waited for
    assert ended or not (server.ready and client.ready)


@given(st.lists(st.integers(1, 400), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_messages(cuts: list[int]) -> None:
    both = Both()
    parts = [bytes(size) for size in (0, 1, 200, 255, 300)]
    stream, came = b"".join(map(both.sealed, parts)), list[list[bytes]]()
    for cut in [*cuts, len(stream)]:
        came += both.server.feed(stream[:cut])
        stream = stream[cut:]
    assert came == [[part] for part in parts]


def test_dealers_that_fail_in_step_try_the_next_key_and_not_the_one_after() -> None:
    first, second = pair(), pair()
    keys = CurveKeys(first.public, first.secret, others=[second.public])
    place, other = ("tcp://h:1", 1), ("tcp://h:1", 2)
    tried = [keys.served_by(place) for _ in range(2)]
    assert [keys.failed(place, key) for key in tried] == [1, 1]
    assert keys.served_by(place) == second.shown[0]
    assert keys.served_by(other) == first.shown[0], "its node may have started at another time"
    keys.failed(place, second.shown[0])
    assert keys.served_by(place) == first.shown[0]


def test_a_listener_makes_keys_only_for_one_that_knows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, made = pair(), []
    good, strange = (CurveDecoder(b"DEALER", keys, key, b"me") for key in (keys.all[0], pair().all[0]))
    new_pair = bindings.crypto_box_keypair

    def counted() -> tuple[bytes, bytes]:
        made.append(1)
        return new_pair()

    monkeypatch.setattr(bindings, "crypto_box_keypair", counted)
    for client in (strange, good):
        server = CurveDecoder(b"ROUTER", keys)
        client.feed(server.greeting)
        with contextlib.suppress(Broken):
            server.feed(client.greeting + bytes(client.pongs))
        assert len(made) == (client is good)


def test_a_clear_decoder_is_unchanged() -> None:
    assert Decoder(b"DEALER").seal is None


def test_a_stolen_connection_of_ours_does_not_hang_on_a_silent_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Untrusted, match=NO_ANSWER):
            asked_with_keys("127.0.0.1", port, pair(pair().public, pair().public), b"?", 0.2)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # the limit was over with the first key
            silent.accept()
