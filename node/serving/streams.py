"""Long answers: read on only as far as their receivers take them.

Their parts leave as PARTIAL records, at most :data:`WINDOW_BYTES` ahead of what the front has passed on or
has room for (CREDIT). An answer that far ahead is parked: off the slicer, its RocksDB iterator open. All
answers of a link together have :data:`LINK_BYTES` on their way that the front has not read, and a piece of
each that has just begun; the others wait for room in turn.

A parked answer ends, with an error, when its front cancels or goes, when it (or its link, if it waits for
that) gets no credit for long, and when there are too many and its receiver is slow.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.steps import Steps
from cluster.wire.messages import Status
from node.links.fronts import FrontLink
from node.slicing.slicer import Slices

WINDOW_BYTES = 1 << 20
LINK_BYTES = 4 << 20  # whatever else the link brings, a small answer too, comes behind them
PIECE_BYTES = 256 << 10
_MOST = 4096  # under way at once; each has an iterator, whose rows RocksDB cannot drop
SLOW_AFTER_S = 10.0
_SLOW_BYTES_S = 65_536
_STEP_FIELDS = 8192  # of something large that are looked at at once
T = TypeVar("T")


def with_signs(work: Steps[T], every: int, sign: Callable[[], None]) -> Steps[T]:
    """The work, with a sign after every so many of its steps: fronts wait for some seconds only, unless they
    hear that it goes on."""
    done = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        done += 1
        if done % every == 0:
            sign()
        yield


def first_pieces(fields: Iterable[bytes], most: int, send: Callable[[int, int], None]) -> Steps[int]:
    """Send what is before the last piece of something large: a piece of ``most`` bytes or more begins at a
    field, and ends before another. Returns where the last one begins."""
    begin = size = 0
    for at, field in enumerate(fields):
        if size >= most:
            send(begin, at)
            begin, size = at, 0
            yield
        elif at % _STEP_FIELDS == _STEP_FIELDS - 1:
            yield
        size += len(field)
    return begin


def slow(began: float, moved_at: float, taken: int, now: float) -> bool:
    """Whether the receiver of an answer is so slow that it may end for another's."""
    return now - moved_at > SLOW_AFTER_S or taken < (now - began - SLOW_AFTER_S) * _SLOW_BYTES_S


class LongAnswer:
    __slots__ = (
        "_streams", "began", "credited", "link", "moved_at", "parked", "refusal", "resumed", "rid", "sent",
    )

    def __init__(self, streams: Streams, link: FrontLink, rid: int) -> None:
        self._streams = streams
        self.link = link
        self.rid = rid
        self.sent = 0
        self.credited = 0
        self.began = self.moved_at = 0.0
        self.parked: Slices | None = None  # the reader, while the receiver has to catch up
        self.refusal = errors.TOO_MANY_REQUESTS  # its end, where it cannot go on
        self.resumed = False  # it goes on since there is room for a piece of it, and has not taken that yet

    @property
    def ahead(self) -> bool:
        return self.sent - self.credited >= WINDOW_BYTES

    def run(self, work: Slices) -> Slices:
        """For the slicer: ``work`` until it ends or a window is full."""
        sent = self.sent
        try:
            for _ in work:
                quiet, sent = self.sent == sent, self.sent
                given = self._streams.went_on(self)
                if self.ahead or self._streams.full(self.link, promised=not quiet):
                    self._streams.add(self)  # it may have sent nothing yet
                    self.parked = work
                    self._streams.wait(self)
                    return
                if given and quiet:  # it reads on, and the room is for others
                    self._streams.resume_behind(self.link)
                yield
        finally:
            if self.parked is None:
                work.close()
                self._streams.over(self)
            self._streams.went_on(self)
            self._streams.resume_behind(self.link)  # it may have taken less than there was room for


class RangeStream(LongAnswer):
    """A range that its client gets in parts."""

    __slots__ = ()

    def send(self, body: bytes) -> None:
        self.sent += len(body)
        self.link.answer(self.rid, Status.PARTIAL, body)


class Answer(LongAnswer):
    """An answer that the front puts together. ``head``: what its first record begins with. ``written``: its
    request has changed the store, so "too many requests", which says it has not, is no answer (I23)."""

    __slots__ = ("_head",)

    def __init__(
        self, streams: Streams, link: FrontLink, rid: int, head: list[bytes], *, written: bool = False
    ) -> None:
        super().__init__(streams, link, rid)
        self._head = head
        if written:
            self.refusal = errors.TIMEOUT

    def pieces(self, parts: list[bytes]) -> None:
        """Some of it. EtcdError if there are too many long answers."""
        self._streams.add(self)
        self._part(parts)

    def sign(self) -> None:
        """Its front hears that it is being made. It counts for nothing yet."""
        self._part([])

    def _part(self, parts: list[bytes]) -> None:
        parts = self._headed(parts)
        self.sent += sum(map(len, parts))
        self.link.pieces(self.rid, Status.PARTIAL, parts)

    def end(self, parts: list[bytes]) -> None:
        self.link.pieces(self.rid, Status.OK, self._headed(parts))

    def last(self, parts: list[bytes]) -> Slices:
        """All that is left, however much it is."""
        some: list[bytes] = []
        size = 0
        for part in parts:
            for at in range(0, len(part), PIECE_BYTES):
                if size >= PIECE_BYTES:
                    self.pieces(some)
                    some, size = [], 0
                    yield
                some.append(part[at : at + PIECE_BYTES] if len(part) > PIECE_BYTES else part)
                size += len(some[-1])
        self.end(some)

    def _headed(self, parts: list[bytes]) -> list[bytes]:
        head, self._head = self._head, []
        return head + parts


class Streams:
    """All long answers of one node. ``stalled_s``: a parked one ends after so long without credit."""

    def __init__(self, start: Callable[[FrontLink, int, Slices], None], now: Callable[[], float],
                 refuse: Callable[[FrontLink, int, EtcdError], None], stalled_s: float) -> None:
        self._start = start
        self._now = now
        self._refuse = refuse
        self._stalled_s = stalled_s
        self._open: dict[tuple[bytes, int], LongAnswer] = {}
        # parked, with a window of their own: their links are full
        self._behind: dict[bytes, deque[LongAnswer]] = {}
        # of each link: how many have room for a piece, and have not taken it yet
        self._resumed: Counter[bytes] = Counter()

    def open(self, link: FrontLink, rid: int) -> RangeStream:
        """A new stream; EtcdError if there are too many."""
        stream = RangeStream(self, link, rid)
        self.add(stream)
        return stream

    def answer(self, link: FrontLink, rid: int, head: list[bytes], *, written: bool = False) -> Answer:
        """A new answer (:class:`Answer`). It counts once it turns out long."""
        return Answer(self, link, rid, head, written=written)

    def add(self, answer: LongAnswer) -> None:
        """Count an answer, once. EtcdError if there are too many, none of them slow."""
        mark = answer.link.identity, answer.rid
        if self._open.get(mark) is answer:
            return
        now = self._now()
        if len(self._open) >= _MOST:
            parked = [one for one in self._open.values() if one.parked is not None]
            slowest = min(parked, key=lambda one: one.moved_at, default=None)
            if slowest is None or not slow(slowest.began, slowest.moved_at, slowest.credited, now):
                raise EtcdError(answer.refusal)
            self._give_up(slowest)
        self._open[mark] = answer
        answer.began = answer.moved_at = now

    def wait(self, answer: LongAnswer) -> None:
        if not answer.ahead:
            self._behind.setdefault(answer.link.identity, deque()).append(answer)

    def credit(self, link: FrontLink, rid: int, size: int) -> None:
        """The front has passed on ``size`` bytes in all of an answer; with rid 0: has read so many from its
        link."""
        if not rid:
            link.pieces_taken = min(max(link.pieces_taken, size), link.pieces_sent)
            link.taken_at = self._now()
            self.resume_behind(link)
            return
        answer = self._open.get((link.identity, rid))
        if answer is None:
            return
        was_ahead = answer.ahead
        answer.moved_at = self._now()
        if size <= answer.credited:
            # its client takes something else first: it is not this one that is slow
            answer.began = answer.moved_at
        answer.credited = max(answer.credited, size)
        if answer.parked is not None and was_ahead and not answer.ahead:
            if self.full(link):
                self.wait(answer)
            else:
                self._resume(answer)

    def full(self, link: FrontLink, promised: bool = True) -> bool:
        """Whether all answers of a link have on their way what they may; ``promised``: with a piece of each
        that was resumed."""
        pieces = self._resumed[link.identity] if promised else 0
        return link.in_flight + pieces * PIECE_BYTES >= LINK_BYTES

    def went_on(self, answer: LongAnswer) -> bool:
        """The room for a piece that it was given, if it was, is taken, or not wanted any more."""
        given = answer.resumed
        if given:
            answer.resumed = False
            self._resumed[answer.link.identity] -= 1
            if not self._resumed[answer.link.identity]:
                del self._resumed[answer.link.identity]
        return given

    def resume_behind(self, link: FrontLink) -> None:
        """Answers that wait for room on this link go on."""
        behind = self._behind.get(link.identity)
        while behind and not self.full(link):
            answer = behind.popleft()
            if answer.parked is not None and not answer.ahead:
                self._resume(answer)
        if not behind:
            self._behind.pop(link.identity, None)

    def _resume(self, answer: LongAnswer) -> None:
        work, answer.parked = answer.parked, None
        assert work is not None, "an answer that is not parked continues by itself"
        answer.resumed = True
        self._resumed[answer.link.identity] += 1
        self._start(answer.link, answer.rid, answer.run(work))

    def end(self, link: FrontLink, rid: int) -> None:
        """The answer is not awaited any more."""
        answer = self._open.get((link.identity, rid))
        if answer is not None and answer.parked is not None:
            work, answer.parked = answer.parked, None
            work.close()
            self.over(answer)

    def _give_up(self, answer: LongAnswer) -> None:
        self.end(answer.link, answer.rid)
        if answer.link.alive:
            self._refuse(answer.link, answer.rid, EtcdError(answer.refusal))

    def over(self, answer: LongAnswer) -> None:
        if self._open.get(key := (answer.link.identity, answer.rid)) is answer:
            del self._open[key]

    def sweep(self) -> None:
        """Every second: end parked answers that are not taken."""
        now = self._now()
        for answer in list(self._open.values()):
            if answer.parked is None:
                continue
            moved_at = answer.moved_at if answer.ahead else max(answer.moved_at, answer.link.taken_at)
            if now - moved_at > self._stalled_s:
                self._give_up(answer)
            elif not answer.link.alive:
                self.end(answer.link, answer.rid)
        for identity in [
            i for i, behind in self._behind.items() if all(one.parked is None for one in behind)
        ]:
            del self._behind[identity]

    def close(self) -> None:
        for answer in list(self._open.values()):
            self.end(answer.link, answer.rid)

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def parked(self) -> int:
        return sum(one.parked is not None for one in self._open.values())
