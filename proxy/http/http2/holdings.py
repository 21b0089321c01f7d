"""What one HTTP/2 connection holds of its front's memory (``proxy.http.memory``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.memory import STEP_BYTES, STREAM_BYTES, Memory

if TYPE_CHECKING:
    from proxy.http.http2.stream import Stream


class Holdings:
    """The counts of a connection, each kept by whoever changes it."""

    __slots__ = (
        "buffered", "counted", "finished", "gathered", "memory", "queued", "shares", "streams", "unanswered",
        "unsent",
    )

    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory or Memory()
        self.streams: dict[int, Stream] = {}
        # ids of streams, by what there are few of (``proxy.services.shares``)
        self.shares: dict[object, list[int]] = {}
        self.buffered = 0  # bytes of unfinished requests, counted by the layer above
        self.unanswered = 0  # bytes of requests that are being answered, but for small ones
        self.gathered = 0  # bytes of answers that have not all come from the nodes
        self.queued = 0  # bytes of answers in all streams' queues
        self.unsent = 0  # bytes that the socket has not taken, as of the last write
        self.counted = 0
        self.finished = False

    def recount(self) -> None:
        """Tell the front's memory, if there is a difference that matters."""
        size = (self.buffered + self.unanswered + self.gathered + self.queued + self.unsent
                + len(self.streams) * STREAM_BYTES)
        if not -STEP_BYTES < size - self.counted < STEP_BYTES and not self.finished:
            self.memory.count(self, size)

    @property
    def crowded(self) -> bool:
        """Whether it must not get anything more in."""
        return self.memory.crowded(self)
