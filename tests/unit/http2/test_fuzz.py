"""Random and mutated octets: nothing is ever raised, what is said stays well-formed, memory stays bounded."""

from __future__ import annotations

import random

import hpack
import pytest

from proxy.grpc.calls import Peer
from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE, Connection, Limits
from proxy.http.http2 import frames as f
from tests.unit.grpc.harness import Echo
from tests.unit.http2.client import REQUEST, parse

LIMITS = Limits(
    max_concurrent_streams=50, max_buffered_bytes=200_000, max_message_bytes=100_000,
    stream_window_bytes=65_535,
)


def registry() -> Registry:
    made = Registry()
    made.unary("/a.B/C", lambda call, data: call.reply(data, b"!"))
    made.unary("/a.B/Fail", lambda call, data: call.finish(5, data.decode("latin-1")))
    made.unary("/a.B/Park", lambda call, data: None)
    made.stream("/a.B/Bidi", Echo())
    made.http("/health", lambda request: request.respond(200, request.body))
    return made


def session(rng: random.Random) -> bytes:
    """What a correct client might send."""
    encoder = hpack.Encoder()
    out = [PREFACE, f.settings_frame({f.INITIAL_WINDOW_SIZE: rng.choice((0, 100, 65_535, 2**31 - 1))})]
    for stream_id in range(1, 2 * rng.randrange(1, 12), 2):
        fields = list(REQUEST)
        fields[2] = (
            ":path",
            rng.choice(("/a.B/C", "/a.B/Fail", "/a.B/Park", "/a.B/Bidi", "/a.B/None", "/health", "x")),
        )
        fields += rng.sample(
            [
                ("grpc-timeout", f"{rng.randrange(1000)}m"), ("grpc-encoding", "gzip"),
                ("x-y", "z" * rng.randrange(50)),
            ],
            rng.randrange(3),
        )
        if rng.random() < 0.2:
            fields[4] = ("content-type", "text/plain")
        out.append(f.header_frames(stream_id, encoder.encode(fields), False, rng.choice((16_384, 20))))
        for _ in range(rng.randrange(3)):
            body = rng.randbytes(rng.randrange(300))
            out.append(
                f.frame(
                    f.DATA, 0, stream_id,
                    bytes((rng.choice((0, 0, 0, 1, 9)),)) + len(body).to_bytes(4, "big") + body,
                )
            )
        out.append(
            rng.choice(
                (
                    f.frame(f.DATA, 1, stream_id, b""), f.rst_stream(stream_id, 8), b"",
                    f.window_update(stream_id, 1000),
                )
            )
        )
        out.append(
            rng.choice(
                (b"", f.ping(bytes(8)), f.window_update(0, 1000), f.settings_frame({4: rng.randrange(2**31)}))
            )
        )
    return b"".join(out)


def noise(rng: random.Random) -> bytes:
    """Frames of every kind with random content."""
    out = [PREFACE, f.settings_frame({})]
    for _ in range(rng.randrange(1, 60)):
        kind = rng.randrange(12)
        size = rng.choice((0, 4, 5, 8, 6, 12, rng.randrange(100), rng.randrange(16_384)))
        payload = rng.randbytes(size) if rng.random() < 0.7 else bytes(size)
        out.append(
            f.frame(
                kind, rng.choice((0, 1, 4, 5, 8, 0x20, rng.randrange(256))),
                rng.choice((0, 1, 1, 3, 5, rng.randrange(2**32))), payload,
            )
        )
    return b"".join(out)


def mutate(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(PREFACE), len(changed))
        what = rng.randrange(4)
        if what == 0:
            changed[at] = rng.randrange(256)
        elif what == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del changed[at : at + rng.randrange(1, 30)]
        else:
            changed[at:at] = changed[rng.randrange(len(changed)) :][: rng.randrange(1, 200)]
        if len(changed) <= len(PREFACE):
            break
    return bytes(changed)


def play(data: bytes, rng: random.Random) -> Connection:
    deadlines = Deadlines(lambda when: None)
    connection = Connection(registry().open, LIMITS, 0.0, lambda: None, Peer("fuzz", deadlines))
    said = b""
    pos = 0
    now = 0.0
    while pos < len(data):
        step = rng.choice((1, 20, 300, len(data)))
        connection.receive(data[pos : pos + step], now)
        pos += step
        now += 0.001
        if rng.random() < 0.1:
            connection.pause_writing()
        elif rng.random() < 0.3:
            connection.resume_writing()
        while piece := connection.take():
            said += piece
    parse(said)
    assert len(connection.streams) <= LIMITS.max_concurrent_streams
    assert connection.buffered <= LIMITS.max_buffered_bytes + 16_384
    assert len(connection._rest) <= 16_384 + 9 + len(data[-300:])
    assert connection._decoder._size <= 4_096
    connection.tick(now)
    deadlines.expire(now + 10_000)
    connection.lost()
    assert len(connection.streams) == connection.queued == 0
    assert connection.buffered == 0, "every unfinished request is given back"
    assert len(deadlines) == 0, "every deadline is given back"
    return connection


@pytest.mark.parametrize("chunk", range(4))
def test_correct_sessions_are_never_hung_up_on(chunk: int) -> None:
    for seed in range(chunk * 40, chunk * 40 + 40):
        rng = random.Random(seed)
        connection = play(session(rng), rng)
        assert connection.reason in (
            "connection lost", "too_many_pings", "INITIAL_WINDOW_SIZE overflows a window",
        ), connection.reason


@pytest.mark.parametrize("chunk", range(8))
def test_mutated_sessions(chunk: int) -> None:
    for seed in range(chunk * 100, chunk * 100 + 100):
        rng = random.Random(seed)
        play(mutate(rng, session(rng)), rng)


@pytest.mark.parametrize("chunk", range(4))
def test_noise(chunk: int) -> None:
    for seed in range(chunk * 100, chunk * 100 + 100):
        rng = random.Random(seed)
        play(noise(rng), rng)
