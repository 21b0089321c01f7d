"""Floods of HTTP/2 that have names, and clients that send or read an octet at a time (docs/run/security.md).
"""

from __future__ import annotations

import contextlib
import socket
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from tests.faults.attacking.beside import BOTH_FRONTS, FLOOR_S, Attacked, attacked
from tests.faults.attacking.raw import LIMIT_S, Raw

pytestmark = pytest.mark.timeout(300)
MOST_BYTES = 200 << 20
SHARE_S = 1.0  # of a turn
_CHECK, _PUT = "/grpc.health.v1.Health/Check", "/etcdserverpb.KV/Put"


@pytest.fixture(scope="module", params=BOTH_FRONTS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("attacks") / "d", request.param) as found:
        yield found


def flooding(endpoint: str, connections: int, piece: Callable[[Raw], bytes]) -> int:
    """Send piece after piece on so many connections, read nothing, and connect anew when turned out; how
    often that was."""
    until, turned_out = time.monotonic() + SHARE_S, 0
    with contextlib.ExitStack() as stack:
        raws: list[Raw | None] = [None] * connections
        while time.monotonic() < until:
            for place, raw in enumerate(raws):
                try:
                    if raw is None:
                        raw = raws[place] = stack.enter_context(Raw(endpoint))
                        raw.socket.settimeout(0.05)
                    raw.send(piece(raw))
                except TimeoutError:
                    # it is not read any more: half a piece is on its way, and the rest of it never comes
                    continue
                except OSError:
                    raws[place] = None
                    turned_out += 1
    return turned_out


def rapid_resets(raw: Raw) -> bytes:
    """CVE-2023-44487: calls that are reset as soon as they are made."""
    calls = []
    for _ in range(500):
        stream = raw.next_id
        calls += [raw.call_frames(_PUT, b"", end=False), f.rst_stream(stream, 8)]
    return b"".join(calls)


def made_to_reset(raw: Raw) -> bytes:
    """CVE-2025-8671: the server is made to reset calls, by windows that overflow."""
    calls = []
    for _ in range(500):
        stream = raw.next_id
        calls += [raw.call_frames(_PUT, b"", end=False), f.window_update(stream, f.MAX_WINDOW)]
    return b"".join(calls)


def continuations(raw: Raw) -> bytes:
    """CVE-2024-24549 and its kin: a header block that does not end."""
    stream, raw.next_id = raw.next_id, raw.next_id + 2
    piece = b"\x00\x01a\x7f\x81\x7e" + b"x" * 16_000
    return (
        f.frame(f.HEADERS, 0, stream, raw.block(_PUT))
        + f.frame(f.CONTINUATION, 0, stream, piece[:16_000]) * 50
    )


def empty_continuations(raw: Raw) -> bytes:
    """CONTINUATION frames without an octet in them."""
    stream, raw.next_id = raw.next_id, raw.next_id + 2
    return f.frame(f.HEADERS, 0, stream, raw.block(_PUT)) + f.frame(f.CONTINUATION, 0, stream) * 5000


def settings(raw: Raw) -> bytes:
    """CVE-2019-9515: each is to be acknowledged."""
    return f.settings_frame({f.INITIAL_WINDOW_SIZE: 1000}) * 5000


def pings(raw: Raw) -> bytes:
    """CVE-2019-9512: each is to be answered."""
    return f.ping(bytes(8)) * 5000


def empty_frames(raw: Raw) -> bytes:
    """CVE-2019-9518: DATA of no octets on a call that goes on."""
    if raw.next_id == 1:
        raw.call(_PUT, end=False)
    return f.frame(f.DATA, 0, 1) * 5000


def tiny_frames(raw: Raw) -> bytes:
    """DATA of one octet each, of a message of 60,000 octets."""
    stream = raw.next_id
    head = raw.call_frames(_CHECK, end=False) + f.frame(
        f.DATA, 0, stream, b"\0" + (60_000).to_bytes(4, "big")
    )
    return head + f.frame(f.DATA, 0, stream, b"x") * 5000


def priorities(raw: Raw) -> bytes:
    """CVE-2019-9513: the order of streams, shuffled."""
    return f.frame(f.PRIORITY, 0, 1, b"\0\0\0\3\x10") * 5000


def padded(raw: Raw) -> bytes:
    """DATA of padding only, 255 octets of it each."""
    if raw.next_id == 1:
        raw.call(_PUT, end=False)
    return f.frame(f.DATA, f.PADDED, 1, b"\xff" + bytes(255)) * 1000


FLOODS = [rapid_resets, continuations, *(pytest.param(flood, marks=pytest.mark.soak) for flood in (
    made_to_reset, empty_continuations, settings, pings, empty_frames, tiny_frames, priorities, padded))]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_spoils_its_connection(cluster: Attacked, flood: Callable[[Raw], bytes]) -> None:
    cluster.beside(
        lambda: flooding(cluster.endpoint, 4, flood), turns=1, floor_s=1.5 * FLOOR_S, most_bytes=MOST_BYTES
    )


def zero_windows(endpoint: str) -> None:
    """CVE-2019-9511 and 9517: 20,000 calls whose answers may not be sent, as no window ever opens."""
    with Raw(endpoint, window=0) as raw, contextlib.suppress(OSError):
        for _ in range(200):
            raw.send(*(raw.call_frames(_CHECK, b"") for _ in range(100)))
        time.sleep(SHARE_S)


def compressed(endpoint: str) -> None:
    """Messages of 16 KB that mean 16 MB each: whoever unpacks them before looking has 1.6 GB."""
    bomb = zlib.compress(bytes(16 << 20), 9)
    data = b"\1" + len(bomb).to_bytes(4, "big") + bomb
    with Raw(endpoint) as raw:
        streams = []
        for _ in range(100):
            stream = raw.call(_PUT, end=False, more=[("grpc-encoding", "gzip")])
            raw.send(
                f.frame(f.DATA, 0, stream, data[:16_000]),
                f.frame(f.DATA, f.END_STREAM, stream, data[16_000:]),
            )
            streams.append(stream)
        raw.read_until_ended(*streams)
        assert "0" not in raw.ended.values()


def slow_clients(endpoint: str) -> None:
    """400 connections that send an octet at a time: of a preface, of headers, of a request line, of a
    body."""
    host, _, port = endpoint.rpartition(":")
    beginnings = [
        b"",
        PREFACE + f.settings_frame({}) + f.frame(f.HEADERS, 0, 1, b"\x83"),
        b"GET /version HTTP/1.1\r\nX: ",
        b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
    ]
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(400):
            found.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S)))
            found[-1].sendall(beginnings[number % 4])
        for octet in PREFACE[:8]:
            for connection in found:
                with contextlib.suppress(OSError):
                    connection.sendall(bytes((octet,)))
            time.sleep(SHARE_S / 8)


@pytest.mark.parametrize(
    "attack", [zero_windows, compressed, pytest.param(slow_clients, marks=pytest.mark.soak)]
)
def test_what_is_never_taken_or_never_ends_costs_others_nothing(
    cluster: Attacked, attack: Callable[[str], None]
) -> None:
    cluster.beside(lambda: attack(cluster.endpoint), turns=1, floor_s=1.5 * FLOOR_S, most_bytes=MOST_BYTES)
