"""Ranges that are streamed: read on only as far as their receivers take them.

A stream's parts leave as PARTIAL records, at most :data:`WINDOW_BYTES` of their bodies ahead of what the front says
it has passed on (CREDIT). One that is that far ahead is parked: off the slicer, its RocksDB iterator open. So a
client that does not read costs one window and no CPU, and is forgotten when its front cancels, goes, or gives no
credit for long.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.errors import EtcdError
from cluster.messages import Status
from node.fronts import FrontLink
from node.reads import Slices

WINDOW_BYTES = 1 << 20
_STALLED_S = 600.0
_MOST = 1000  # under way at once; each keeps an iterator, hence what it shows from being dropped


class RangeStream:
    """One of them."""

    __slots__ = ("_streams", "credited", "link", "moved_at", "parked", "rid", "sent")

    def __init__(self, streams: Streams, link: FrontLink, rid: int) -> None:
        self._streams = streams
        self.link = link
        self.rid = rid
        self.sent = 0
        self.credited = 0
        self.moved_at = 0.0
        self.parked: Slices | None = None  # the reader, while the receiver has to catch up

    def send(self, body: bytes) -> None:
        """One part."""
        self.sent += len(body)
        self.link.answer(self.rid, Status.PARTIAL, body)

    def run(self, work: Slices) -> Slices:
        """For the slicer: ``work`` until it ends or the window is full."""
        try:
            for _ in work:
                if self.sent - self.credited >= WINDOW_BYTES:
                    self.parked = work
                    return
                yield
        finally:
            if self.parked is None:
                work.close()
                self._streams.over(self)


class Streams:
    """All such streams of one node. ``start``: give work of a link's request to the slicer."""

    def __init__(self, start: Callable[[FrontLink, int, Slices], None], now: Callable[[], float]) -> None:
        self._start = start
        self._now = now
        self._open: dict[tuple[bytes, int], RangeStream] = {}

    def open(self, link: FrontLink, rid: int) -> RangeStream:
        """A new stream; EtcdError if there are too many."""
        if len(self._open) >= _MOST:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        stream = self._open[link.identity, rid] = RangeStream(self, link, rid)
        stream.moved_at = self._now()
        return stream

    def credit(self, link: FrontLink, rid: int, size: int) -> None:
        """The front has passed on so many bytes in all."""
        stream = self._open.get((link.identity, rid))
        if stream is None:
            return
        stream.credited = max(stream.credited, size)
        stream.moved_at = self._now()
        work = stream.parked
        if work is not None and stream.sent - stream.credited < WINDOW_BYTES:
            stream.parked = None
            self._start(link, rid, stream.run(work))

    def end(self, link: FrontLink, rid: int) -> None:
        """Nobody waits for it any more. One that is not parked is ended by the slicer."""
        stream = self._open.get((link.identity, rid))
        if stream is not None and stream.parked is not None:
            stream.parked.close()
            self.over(stream)

    def over(self, stream: RangeStream) -> None:
        """It has ended."""
        self._open.pop((stream.link.identity, stream.rid), None)

    def sweep(self) -> None:
        """Every second: end the parked ones that nobody reads."""
        now = self._now()
        for stream in list(self._open.values()):
            if not stream.link.alive or now - stream.moved_at > _STALLED_S:
                self.end(stream.link, stream.rid)

    def close(self) -> None:
        """The node stops: let go of the database."""
        for stream in list(self._open.values()):
            self.end(stream.link, stream.rid)

    @property
    def count(self) -> int:
        """How many are open, parked or not."""
        return len(self._open)
