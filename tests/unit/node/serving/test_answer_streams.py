"""Ranges that are streamed go no further than their receivers take them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import EtcdError
from cluster.wire import messages
from cluster.wire.messages import Status
from node.links.fronts import FrontLink
from node.serving import streams
from node.serving.reads import Reads
from node.serving.streams import (
    LINK_BYTES,
    PIECE_BYTES,
    SLOW_AFTER_S,
    WINDOW_BYTES,
    Answer,
    RangeStream,
    Streams,
)
from node.slicing.slicer import Slicer, Slices
from tests.unit.proxy.fakes import ManualLoop

PART = b"p" * 100_000
STALLED_S = 60.0


class Served:
    """A node's read path with one stream of endless parts on it."""

    def __init__(self, parts: int = 1_000_000) -> None:
        loop: Any = ManualLoop()
        self.loop = loop
        self.slicer = Slicer(self.loop)
        self.reads = Reads(self.loop, self.slicer, lambda link: None, lambda: 0)
        self.streams = Streams(self.reads.start, self.loop.time, self.reads.refuse, STALLED_S)
        self.frames: list[bytes] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)
        self.closed = 0
        stream = self.streams.open(self.link, 7)
        self.reads.start(self.link, 7, stream.run(self._work(stream, parts)))
        self.settle()

    def _work(self, stream: RangeStream, parts: int) -> Slices:
        try:
            for _ in range(parts):
                stream.send(PART)
                yield
            self.link.answer(7, Status.OK, b"")
        finally:
            self.closed += 1

    def _frame(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def settle(self) -> None:
        """Run until there is nothing to do: a stream that went on for ever would fail here."""
        self.loop.run()

    def taken(self) -> tuple[int, int]:
        """What the front has got: bytes of parts, last status."""
        self.link.flush()
        records = [record for frame in self.frames for record in messages.decode_answers(frame)[1]]
        self.frames.clear()
        return sum(len(body) for _, status, body in records if status == Status.PARTIAL), records[-1][
            1
        ] if records else -1


def test_a_receiver_that_takes_nothing_gets_one_window_and_costs_no_slices() -> None:
    served = Served()
    got, _ = served.taken()
    assert WINDOW_BYTES <= got < WINDOW_BYTES + len(PART)
    assert served.slicer.pending == 0
    assert (served.reads.running, served.streams.parked) == (0, 1)
    served.streams.credit(served.link, 7, 1000)
    served.settle()
    assert served.taken() == (0, -1)
    served.streams.credit(served.link, 7, got)
    served.settle()
    assert WINDOW_BYTES <= served.taken()[0] < WINDOW_BYTES + len(PART)


def test_a_cancel_ends_a_stream_whose_next_step_fills_its_window() -> None:
    """It was parked by that step, with its iterator, for a minute."""
    served = Served()
    served.reads.on_cancelled = served.streams.end
    got, _ = served.taken()
    served.streams.credit(served.link, 7, got - WINDOW_BYTES + len(PART))
    assert served.slicer.pending, "it goes on, and one step fills it"
    served.reads.cancel(served.link, 7)
    served.streams.end(served.link, 7)
    served.settle()
    assert served.closed == 1
    assert served.streams.count == 0


def test_a_stream_that_is_taken_ends_and_is_forgotten() -> None:
    served = Served(parts=30)
    sent, status = served.taken()
    while status != Status.OK:
        served.streams.credit(served.link, 7, sent)
        served.settle()
        more, status = served.taken()
        assert more or status == Status.OK
        sent += more
    assert sent == 30 * len(PART)
    assert (served.streams.count, served.closed) == (0, 1)


def test_a_parked_stream_ends_when_its_front_cancels_or_gives_no_credit_for_long() -> None:
    served = Served()
    served.streams.end(served.link, 7)
    assert (served.streams.count, served.closed) == (0, 1)
    served = Served()
    served.loop.now += STALLED_S - 1
    served.streams.sweep()
    assert served.closed == 0
    served.loop.now += 2
    served.streams.sweep()
    assert (served.streams.count, served.closed) == (0, 1)
    assert served.taken()[1] == Status.ERROR, "its client is told"
    served = Served()
    served.link.alive = False
    served.streams.sweep()
    assert (served.streams.count, served.closed) == (0, 1)


def test_one_that_runs_ends_at_its_next_slice_when_it_is_cancelled() -> None:
    served = Served()
    served.streams.credit(served.link, 7, 1 << 40)
    served.reads.cancel(served.link, 7)
    served.streams.end(served.link, 7)
    served.settle()
    assert (served.streams.count, served.closed, served.slicer.pending) == (0, 1, 0)
    served.reads.cancel(served.link, 8)
    assert not served.reads._running  # a read that is not there leaves nothing behind


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOST", 1)
    served = Served()
    with pytest.raises(EtcdError, match="too many requests"):
        served.streams.open(served.link, 8)


def test_a_slow_one_makes_room_for_a_newcomer_and_its_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MOST", 1)
    served = Served()
    served.taken()
    served.loop.now += SLOW_AFTER_S + 1
    served.streams.open(served.link, 8)
    assert (served.streams.count, served.closed) == (1, 1)
    assert served.taken()[1] == Status.ERROR


def test_who_takes_a_trickle_is_slow() -> None:
    assert not streams.slow(began=0.0, moved_at=100.0, taken=100 << 20, now=105.0)
    assert streams.slow(began=0.0, moved_at=100.0, taken=100_000, now=105.0)
    assert streams.slow(began=0.0, moved_at=80.0, taken=100 << 20, now=105.0)
    assert not streams.slow(began=100.0, moved_at=100.0, taken=0, now=105.0)


class Shared(Served):
    """Many answers on one link, which are put together by the front."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(parts=0)
        self.taken()
        self.size = size
        for rid in range(10, 10 + count):
            self.ask(rid)
        self.settle()

    def ask(self, rid: int) -> None:
        answer = self.streams.answer(self.link, rid, [b"head"])
        self.reads.start(self.link, rid, answer.run(answer.last([b"r" * self.size])))

    def came(self) -> dict[int, int]:
        """Bytes that the front has read since, by request."""
        self.link.flush()
        found: dict[int, int] = {}
        for frame in self.frames:
            for rid, _, body in messages.decode_answers(frame)[1]:
                found[rid] = found.get(rid, 0) + len(body)
        self.frames.clear()
        return found


def test_all_answers_of_a_link_have_a_window_together_and_none_is_left_out() -> None:
    shared = Shared(count=100, size=900_000)
    got = shared.came()
    assert LINK_BYTES <= sum(got.values()) <= LINK_BYTES + 100 * (PIECE_BYTES + 4)
    read = sum(got.values())
    for _ in range(1000):
        shared.streams.credit(shared.link, 0, read)
        shared.settle()
        more = shared.came()
        read += sum(more.values())
        for rid, size in more.items():
            got[rid] = got.get(rid, 0) + size
        if not more:
            break
    assert got == dict.fromkeys(range(10, 110), 900_004)
    assert shared.streams.count == 0


def test_room_on_a_link_goes_to_as_many_answers_as_it_is_for() -> None:
    shared = Shared(count=300, size=900_000)
    read = sum(shared.came().values())
    assert read > 2 * LINK_BYTES, "each new one sends a piece"
    while shared.streams.count:
        shared.streams.credit(shared.link, 0, read)
        shared.settle()
        assert shared.link.in_flight <= LINK_BYTES + PIECE_BYTES
        more = sum(shared.came().values())
        assert more
        read += more
    assert read == 300 * 900_004


def test_those_who_wait_for_a_full_link_go_on_when_others_end_with_less_than_there_was_room_for() -> None:
    """Ends of answers take none of it, and no credit comes for them."""
    shared = Shared(count=300, size=PIECE_BYTES + 1)
    read = sum(shared.came().values())
    shared.streams.credit(shared.link, 0, read)
    shared.settle()
    assert read + sum(shared.came().values()) == 300 * (PIECE_BYTES + 5)
    assert shared.streams.count == 0


def test_those_who_wait_for_a_full_link_go_on_while_others_read_on_and_send_nothing() -> None:
    """Their filters find nothing, say. They kept for themselves what there is room for on the link."""
    shared = Shared(count=0, size=900_000)
    shared.link.pieces_sent = LINK_BYTES  # of answers that have ended
    found: list[int] = []

    def reads_on(answer: Answer) -> Slices:
        while not found:
            yield
        answer.end([b"0"])

    for rid in range(10, 10 + 2 * LINK_BYTES // PIECE_BYTES):
        answer = shared.streams.answer(shared.link, rid, [b"head"])
        shared.reads.start(shared.link, rid, answer.run(reads_on(answer)))
    shared.settle()
    shared.ask(99)
    shared.settle()
    assert shared.slicer.pending == 0, "there is no room for any"
    shared.streams.credit(shared.link, 0, shared.link.pieces_sent)
    for _ in range(300):
        shared.loop.turn()
    assert shared.came() == {99: 900_004}
    found.append(1)
    shared.settle()
    assert shared.streams.count == 0


@pytest.mark.parametrize("how", ["front gone", "cancelled", "node stops"])
def test_one_that_waits_for_a_full_link_before_it_has_sent_anything_ends_too(how: str) -> None:
    """It counts, say: it reads many rows and shows none. It would keep an iterator of the database for
    ever."""
    shared = Shared(count=200, size=900_000)
    assert shared.link.in_flight >= LINK_BYTES
    closed = shared.closed

    def counts() -> Slices:
        try:
            for _ in range(10):
                yield
            answer.end([b"10"])
        finally:
            shared.closed += 1

    answer = shared.streams.answer(shared.link, 7, [b"head"])
    shared.reads.start(shared.link, 7, answer.run(counts()))
    shared.settle()
    if how == "front gone":
        shared.link.alive = False
        shared.streams.sweep()
    elif how == "cancelled":
        shared.reads.cancel(shared.link, 7)
        shared.streams.end(shared.link, 7)
    else:
        shared.streams.close()
    assert shared.closed == closed + 1
    assert how == "cancelled" or shared.streams.count == 0


def test_those_that_wait_for_a_link_whose_front_stands_still_end() -> None:
    """Its connection lives. Each would keep an iterator of the database for ever."""
    shared = Shared(count=100, size=900_000)
    read = sum(shared.came().values())
    shared.loop.now += STALLED_S - 1
    shared.streams.credit(shared.link, 0, read // 2)
    shared.settle()
    waiting = shared.streams.count
    shared.loop.now += STALLED_S - 1
    shared.streams.sweep()
    assert shared.streams.count == waiting > 0, "it has read some"
    shared.loop.now += 2
    shared.streams.sweep()
    shared.settle()
    assert shared.streams.count == 0
    assert not shared.streams._behind


def test_an_answer_whose_receiver_has_no_room_does_not_stop_others() -> None:
    shared = Shared(count=LINK_BYTES // WINDOW_BYTES - 1, size=2 << 20)
    read = sum(shared.came().values())
    assert shared.link.in_flight < LINK_BYTES
    shared.streams.credit(shared.link, 0, read)
    shared.settle()
    assert shared.came() == {}, "each has had its window"
    shared.ask(50)
    shared.streams.credit(shared.link, 11, 2 << 20)
    shared.settle()
    got = shared.came()
    assert set(got) == {11, 50}
    assert got[50] >= WINDOW_BYTES


def test_a_short_answer_is_one_record() -> None:
    shared = Shared(count=1, size=PIECE_BYTES)
    assert shared.came() == {10: PIECE_BYTES + 4}
    assert shared.link.pieces_sent == 0


def test_one_whose_client_takes_others_first_is_neither_slow_nor_stalled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "_MOST", 1)
    served = Served()
    for _ in range(30):
        served.loop.now += SLOW_AFTER_S - 1
        served.streams.credit(served.link, 7, 0)
        served.streams.sweep()
        with pytest.raises(EtcdError, match="too many requests"):
            served.streams.open(served.link, 8)
    assert (served.streams.count, served.closed) == (1, 0)
