"""What the layer makes of records that cost more than they bring, and of records in pieces."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.settings import Tls
from proxy.tls import Credentials, TlsLayer
from tests.authority import Authority
from tests.unit.tls.rekeying import Rekeying

TURN = 64  # records, at most


class Socket:
    """A transport whose client takes nothing unless it is asked to."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.reading = True
        self.aborted = self.ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")  # as asyncio's
        self.said += data

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return len(self.said)

    def take(self) -> bytes:
        taken = bytes(self.said)
        self.said.clear()
        return taken

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


class Http:
    """The connection above; it pauses reading after each read of at least ``pauses_at`` bytes. Each read is
    little to it, so it asks to be answered at once, as ``proxy.listener.connection`` does."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.reads: list[bytes] = []
        self.peer_name: str | None = None
        self.secure = self.ended = False
        self.pauses_at = 1 << 30
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert data
        self.reads.append(data)
        self.turns.heard = self.turns.at_once = True
        if len(data) >= self.pauses_at:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    def close(self, *, half: bool = False) -> None:
        raise AssertionError("nothing is refused")


class Turns:
    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.is_spent = self.heard = self.at_once = False

    def add(self, go_on: Callable[[], None], turns: int = 0) -> int:
        self.waiting.append(go_on)
        return turns

    def again(self, go_on: Callable[[], None], turns: int) -> int:
        self.waiting.append(go_on)
        return turns + 1

    def spent(self, turns: int = 0) -> bool:
        return self.is_spent

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for go_on in waiting:
            go_on()


class Shaken:
    """A layer and its client after the handshake. ``ahead``: sent in one go with the handshake's end."""

    def __init__(self, authority: Authority, folder: Path, version: str = "TLSv1_3", ahead: bytes = b""):
        pair = authority.issue("server", "127.0.0.1")
        self.socket, self.turns = Socket(), Turns()
        self.http = Http(self.turns)
        credentials = Credentials(Tls(str(pair.cert), str(pair.key)))
        self.layer = TlsLayer(self.http, cast(Any, credentials), self.turns, lambda address, reason: None)
        self.layer.connection_made(cast(Any, self.socket))
        context = ssl.create_default_context(cafile=str(authority.file))
        context.maximum_version = ssl.TLSVersion[version]
        keylog = folder / "secrets"
        context.keylog_filename = str(keylog)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        done = False
        while not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
                done = True
                if ahead:
                    self.client.write(ahead)
            self.layer.data_received(self.outgoing.read())
            self.turns.turn()
            self.incoming.write(self.socket.take())
        if version == "TLSv1_3":
            self.rekeying = Rekeying(self.client, keylog)

    def sealed(self, *plain: bytes) -> bytes:
        for one in plain:
            self.client.write(one)
        return self.outgoing.read()

    def answer(self) -> bytes:
        """What the client reads, by the keys that it was asked to change to."""
        self.incoming.write(self.socket.take())
        return self.client.read(1 << 20)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_key_updates_one_after_the_other_end_their_connection(authority: Authority, tmp_path: Path) -> None:
    """Each has 27 bytes and costs 15 us: 256 KB in one read took 0.15 s."""
    shaken = Shaken(authority, tmp_path)
    shaken.layer.data_received(b"".join(shaken.rekeying.update() for _ in range(2000)))
    for _ in range(4):
        shaken.turns.turn()
    assert shaken.socket.aborted
    assert len(shaken.socket.said) <= 65 * 27
    assert not shaken.http.reads


def test_key_updates_now_and_then_are_answered(authority: Authority, tmp_path: Path) -> None:
    shaken = Shaken(authority, tmp_path)
    for number in range(100):
        sent = b"".join(shaken.rekeying.update() for _ in range(16))  # as many as an etcd takes
        shaken.layer.data_received(sent + shaken.rekeying.data(b"%d" % number))
        assert shaken.http.reads[-1] == b"%d" % number
        shaken.layer.write(b"re: %d" % number)
        assert shaken.answer() == b"re: %d" % number
    assert not shaken.socket.aborted


def test_key_updates_behind_the_end_of_this_side_are_not_answered(
    authority: Authority, tmp_path: Path
) -> None:
    """The answer was a fault with a stack, and waiting records had no further turn."""
    shaken = Shaken(authority, tmp_path)
    shaken.layer.write_eof()
    shaken.socket.take()
    for _ in range(100):
        shaken.layer.data_received(shaken.rekeying.update() + shaken.rekeying.data(b"x"))
    assert len(shaken.http.reads) == 100
    shaken.layer.data_received(b"".join(shaken.rekeying.update() for _ in range(100)))
    shaken.turns.turn()
    assert shaken.socket.aborted, "too many in a row"
    assert not shaken.socket.said


@pytest.mark.parametrize("reads", [False, True])
def test_answers_to_key_updates_are_bounded_for_who_reads_none(
    authority: Authority, tmp_path: Path, reads: bool
) -> None:
    shaken = Shaken(authority, tmp_path)
    most = 0
    for _ in range(5000):
        shaken.layer.data_received(shaken.rekeying.update() + shaken.rekeying.data(b"x"))
        most = max(most, len(shaken.socket.said))
        if reads:
            shaken.socket.take()
        if shaken.socket.aborted:
            break
    assert shaken.socket.aborted != reads
    assert most <= 65_536


def test_a_slow_reader_may_update_its_keys(authority: Authority, tmp_path: Path) -> None:
    """Answers of HTTP, however large, are no answers of TLS."""
    shaken = Shaken(authority, tmp_path)
    shaken.layer.write(bytes(1 << 20))
    for _ in range(1000):
        shaken.layer.data_received(shaken.rekeying.update() + shaken.rekeying.data(b"x"))
    assert not shaken.socket.aborted
    assert len(shaken.http.reads) == 1000


@pytest.mark.parametrize("spent", [False, True])
def test_many_small_records_take_turns(authority: Authority, tmp_path: Path, spent: bool) -> None:
    """11,000 of one byte in one read took 10 ms, of each of a hundred connections."""
    shaken = Shaken(authority, tmp_path)
    shaken.turns.is_spent = spent
    wanted = bytes(number & 255 for number in range(1000))
    shaken.layer.data_received(shaken.sealed(*(wanted[at : at + 1] for at in range(1000))))
    assert len(shaken.http.reads[0]) == (16 if spent else TURN)
    assert not shaken.socket.reading
    turns = 0
    while shaken.turns.waiting:
        turns += 1
        shaken.turns.turn()
    assert turns >= 1000 // TURN
    assert max(map(len, shaken.http.reads)) == TURN
    assert b"".join(shaken.http.reads) == wanted
    assert shaken.socket.reading
    shaken.layer.data_received(shaken.sealed(b"more"))
    assert shaken.http.reads[-1] == b"more"


@pytest.mark.parametrize("asked", [False, True], ids=["alone", "behind another"])
def test_who_sends_many_small_records_is_no_company_of_its_own(
    authority: Authority, tmp_path: Path, asked: bool
) -> None:
    """A client alone rested a millisecond between its turns."""
    shaken = Shaken(authority, tmp_path)
    turns = shaken.turns
    turns.heard = turns.at_once = asked
    shaken.layer.data_received(shaken.sealed(*[b"x"] * 1000))
    assert turns.waiting
    while turns.waiting:
        assert (turns.heard, turns.at_once) == (asked, asked)
        turns.turn()
    assert (turns.heard, turns.at_once) == (asked, asked)
    shaken.layer.data_received(shaken.sealed(b"more"))
    assert (turns.heard, turns.at_once) == (True, True)


def test_a_read_of_full_records_waits_for_nothing(authority: Authority, tmp_path: Path) -> None:
    shaken = Shaken(authority, tmp_path)
    shaken.turns.is_spent = True
    sent = shaken.sealed(bytes(300_000))[:256_000]  # as much as a read has
    shaken.layer.data_received(sent)
    assert not shaken.turns.waiting
    assert len(shaken.http.reads[0]) == len(sent) // 16_406 * 16_384


def test_records_wait_while_the_connection_above_reads_nothing(authority: Authority, tmp_path: Path) -> None:
    shaken = Shaken(authority, tmp_path)
    shaken.http.pauses_at = TURN
    shaken.layer.data_received(shaken.sealed(*[b"x"] * 150))
    for wanted in (64, 128, 150):
        shaken.turns.turn()
        assert sum(map(len, shaken.http.reads)) == wanted
        assert shaken.socket.reading == (wanted == 150)
        assert not shaken.turns.waiting
        shaken.layer.resume_reading()
    assert shaken.socket.reading


def test_what_waits_for_its_turn_ends_with_its_connection(authority: Authority, tmp_path: Path) -> None:
    shaken = Shaken(authority, tmp_path)
    shaken.layer.data_received(shaken.sealed(*[b"x"] * 150))
    shaken.layer.abort()
    shaken.turns.turn()
    assert len(shaken.http.reads) == 1
    assert not shaken.turns.waiting


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("seed", range(3))
def test_records_come_in_any_pieces(authority: Authority, tmp_path: Path, version: str, seed: int) -> None:
    rng = random.Random(seed)
    ahead = rng.randbytes(40_000) if seed else b""
    shaken = Shaken(authority, tmp_path, version, ahead)
    plain = [rng.randbytes(rng.choice((1, 20, 3000, 16_384, 50_000))) for _ in range(200)]
    sent = shaken.sealed(*plain)
    with contextlib.suppress(ssl.SSLWantReadError):
        shaken.client.unwrap()
    sent += shaken.outgoing.read()
    while sent:
        size = rng.choice((1, 2, 4, 5, 6, 1400, 70_000))
        if shaken.socket.reading:
            shaken.layer.data_received(sent[:size])
            sent = sent[size:]
        shaken.turns.turn()
    while shaken.turns.waiting:
        shaken.turns.turn()
    assert b"".join(shaken.http.reads) == ahead + b"".join(plain)
    assert shaken.http.ended


@pytest.mark.parametrize("head", [b"\x17\x03\x03\xff\xff", b"\x17\x03\x03\x48\x01"])
def test_a_record_that_is_too_long_is_refused_at_its_head(
    authority: Authority, tmp_path: Path, head: bytes
) -> None:
    shaken = Shaken(authority, tmp_path)
    shaken.layer.data_received(head)
    assert shaken.socket.aborted
