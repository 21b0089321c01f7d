"""What a node answers of the past of a watched range."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.wire.messages import HISTORY_ANSWER, HISTORY_HEAD, SIGNS, Status
from node.serving import serve
from node.storage import StateStore
from tests.unit.node.serving.answering import serve_of

OTHERS = 3000
Answer = tuple[int, int, int]  # the next revision, what is applied, the number of events


def asked(store: StateStore, from_revision: int) -> tuple[Answer, int]:
    """An answer, and the pauses on its way."""
    said: list[bytes] = []
    link: Any = SimpleNamespace(answer=lambda rid, status, body: said.append(body))
    nothing: Any = None
    body = HISTORY_HEAD.pack(from_revision, 200, 1 << 20, 0, 6) + b"/idle/" + b"/idle0"
    pauses = sum(1 for _ in serve_of(store, nothing, nothing, nothing)._history(link, 1, body))
    following, applied, _, count = HISTORY_ANSWER.unpack_from(said[0])
    return (following, applied, count), pauses


def test_a_range_whose_past_is_long_and_not_its_own_is_answered_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A front asks again after seven seconds, and asked from the same revision for ever once."""
    monkeypatch.setattr(serve, "_HISTORY_SLICES", 4)
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    store.apply([(i, 1, records.put(b"/busy/%d" % i, 0, 1, b"", 0)) for i in range(1, OTHERS)])
    store.apply([(OTHERS, 1, records.put(b"/idle/a", 0, 1, b"", 0))])
    answers = []
    at = 2
    while at <= store.revision:
        (at, applied, count), pauses = asked(store, at)
        assert applied == store.revision
        assert pauses < 4
        answers.append(count)
    assert answers == [0, 0, 0, 0, 0, 1]
    assert at == store.revision + 1
    store.close()


def test_a_revision_of_very_many_changes_is_answered_with_signs_of_life(tmp_path: Path) -> None:
    """It is read as a whole. A front that heard nothing gave it up, and asked for it again for ever."""
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    puts = [records.put(b"/idle/%05d" % i, 0, 1, b"", 0) for i in range(20_000)]
    store.apply([(1, 1, records.txn(puts))])
    said: list[tuple[int, bytes]] = []
    link: Any = SimpleNamespace(answer=lambda rid, status, body: said.append((status, body)))
    nothing: Any = None
    serving = serve_of(store, nothing, nothing, nothing)
    for _ in serving._history(link, 1, HISTORY_HEAD.pack(2, 200, 1 << 20, 0, 6) + b"/idle/" + b"/idle0"):
        pass
    assert [status for status, _ in said] == [Status.OK], "an older front takes a sign for an error"
    said.clear()
    body = HISTORY_HEAD.pack(2, 200, 1 << 20, SIGNS, 6) + b"/idle/" + b"/idle0"
    at: list[int] = []
    for pauses, _ in enumerate(serving._history(link, 1, body), 1):
        if len(said) > len(at):
            at.append(pauses)
    assert at == list(range(100, pauses + 1, 100))
    assert len(at) > 3
    *signs, (status, answer) = said
    assert signs == [(Status.PARTIAL, b"")] * len(at)
    assert status == Status.OK
    assert HISTORY_ANSWER.unpack_from(answer)[3] == len(puts)
    store.close()


def test_the_changes_of_one_revision_are_encoded_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them took a turn of 1.5 s, longer than an election."""
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    store.apply([(1, 1, records.txn([records.put(b"/idle/%05d" % i, 0, 1, b"", 0) for i in range(3000)]))])
    encoded = [0]
    encode = serve.event_field

    def counted(*given: Any) -> bytes:
        encoded[-1] += 1
        return encode(*given)

    monkeypatch.setattr(serve, "event_field", counted)
    link: Any = SimpleNamespace(answer=lambda rid, status, body: None)
    nothing: Any = None
    body = HISTORY_HEAD.pack(2, 200, 1 << 20, SIGNS, 6) + b"/idle/" + b"/idle0"
    for _ in serve_of(store, nothing, nothing, nothing)._history(link, 1, body):
        encoded.append(0)
    assert sum(encoded) == 3000
    assert max(encoded) <= 256
    store.close()


def test_a_revision_of_very_many_bytes_is_answered_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link takes no message of 1 GiB: an answer that was sent whole ended it at each try anew."""
    monkeypatch.setattr(serve, "_HISTORY_PIECE", 64 << 10)
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    puts = [records.put(b"/idle/%05d" % i, 0, 1, bytes(10_000), 0) for i in range(50)]
    store.apply([(1, 1, records.txn(puts))])
    said: list[tuple[int, bytes]] = []
    link: Any = SimpleNamespace(answer=lambda rid, status, body: said.append((status, body)))
    nothing: Any = None
    serving = serve_of(store, nothing, nothing, nothing)
    answers = []
    for flags in (0, SIGNS):
        said.clear()
        body = HISTORY_HEAD.pack(2, 200, 1 << 20, flags, 6) + b"/idle/" + b"/idle0"
        pauses = sum(1 for _ in serving._history(link, 1, body))
        answers.append((len(said), b"".join([piece for _, piece in said])))
        assert [status for status, _ in said] == [Status.PARTIAL] * (len(said) - 1) + [Status.OK]
        assert pauses >= len(said) - 1, "others have their turn between pieces"
    assert [many for many, _ in answers] == [1, 8]
    assert answers[0][1] == answers[1][1]
    assert max(len(piece) for _, piece in said) < (64 << 10) + 11_000
    store.close()


def test_revisions_of_many_changes_each_are_answered_with_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each had its own count of pauses: hundreds of them together took as long as one that is very large."""
    monkeypatch.setattr(serve, "_HISTORY_SLICES", 12)
    store = StateStore.open(tmp_path / "state", block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    store.apply([
        (i, 1, records.txn([records.put(b"/busy/%05d" % k, 0, 1, b"", 0) for k in range(1000)]))
        for i in range(1, 13)])
    said: list[int] = []
    link: Any = SimpleNamespace(answer=lambda rid, status, body: said.append(status))
    nothing: Any = None
    body = HISTORY_HEAD.pack(2, 200, 1 << 20, SIGNS, 6) + b"/idle/" + b"/idle0"
    pauses = sum(1 for _ in serve_of(store, nothing, nothing, nothing)._history(link, 1, body))
    assert pauses > 5 * 12
    assert said == [Status.PARTIAL] * (pauses // 12) + [Status.OK]
    store.close()
