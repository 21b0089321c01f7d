"""ZMTP as bytes: any split of the stream decodes alike, and what is no partner is told so."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.muster.machine.zmtp.codec import (
    GREETING,
    LONG,
    MAX_MESSAGE_BYTES,
    MORE,
    Broken,
    Decoder,
    error_command,
    frame_head,
    ready,
)

HELLO = GREETING + ready(b"DEALER", b"me")


def wire(messages: list[list[bytes]]) -> bytes:
    return b"".join(
        frame_head(len(part), at < len(parts) - 1) + part for parts in messages for at, part in enumerate(parts))


part = st.one_of(st.binary(max_size=5), st.integers(250, 300).map(bytes))


@given(st.lists(st.lists(part, min_size=1, max_size=3), max_size=6), st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_messages(messages: list[list[bytes]], cuts: list[int]) -> None:
    data = HELLO + wire(messages)
    decoder = Decoder(b"ROUTER")
    came: list[list[bytes]] = []
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    for start, end in pairwise(edges):
        if end > start:
            came += decoder.feed(data[start:end])
    assert came == messages
    assert (decoder.ready, decoder.identity) == (True, b"me")


def test_byte_by_byte() -> None:
    decoder = Decoder(b"ROUTER")
    came: list[list[bytes]] = []
    for byte in HELLO + wire([[b"a", b"x" * 300], [b""]]):
        came += decoder.feed(bytes((byte,)))
    assert came == [[b"a", b"x" * 300], [b""]]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak"),
        (GREETING[:10] + b"\x01" + GREETING[11:], "ZMTP 3"),
        (GREETING[:12] + b"CURVE".ljust(20, b"\0") + GREETING[32:], "CURVE"),
        (GREETING + ready(b"PUB", b""), "wrong type"),
        (GREETING + b"\0\1x", "did not say READY"),
        (GREETING + b"\4\6\5ERROR", "'ERROR' instead"),
        (GREETING + error_command("bad"), "^remote error: bad$"),
        (GREETING + b"\4\x0a\5READY\4abc", "READY"),
        (HELLO + bytes((LONG,)) + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), "too large"),
        (HELLO + b"\x08\1x", "unknown flags"),
        (HELLO + bytes((MORE, 0)) * 70, "too large"),
    ],
)
def test_what_is_no_partner_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Broken, match=why):
        Decoder(b"ROUTER").feed(data)


@given(st.binary(max_size=200))
def test_noise_after_the_greeting_raises_nothing_else(noise: bytes) -> None:
    decoder = Decoder(b"ROUTER")
    try:
        decoder.feed(HELLO)
        decoder.feed(noise)
    except Broken:
        pass


def test_a_ping_is_answered_with_its_context_and_is_no_message() -> None:
    decoder = Decoder(b"ROUTER")
    ping = b"\4PING" + b"\0\x0a" + b"context"
    came = decoder.feed(HELLO + bytes((4, len(ping))) + ping + wire([[b"a"]]))
    assert came == [[b"a"]]
    assert bytes(decoder.pongs) == b"\4\x0c\4PONGcontext"


def test_it_tells_how_much_of_an_unfinished_frame_has_come() -> None:
    decoder = Decoder(b"ROUTER")
    decoder.feed(HELLO + frame_head(1 << 20, False))
    for part in range(1, 4):
        decoder.feed(bytes(100_000))
        assert 0 <= decoder.unfinished - part * 100_000 < 20
    assert decoder.feed(bytes((1 << 20) - 300_000))
    assert decoder.unfinished == 0
