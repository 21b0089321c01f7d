"""How fast Raft's entries come or leave, for ``/v2/stats/self``: over the last frames, as etcd has it."""

from __future__ import annotations

from collections import deque

_KEPT = 200  # frames
_FRESH_MS = 1000  # after so long without one there is no rate


class Flow:
    __slots__ = ("_frames", "messages")

    def __init__(self) -> None:
        self.messages = 0  # since the start
        self._frames: deque[tuple[int, int, int]] = deque(maxlen=_KEPT)  # when, messages, bytes

    def add(self, now_ms: int, messages: int, size: int) -> None:
        self.messages += messages
        self._frames.append((now_ms, messages, size))

    def rates(self, now_ms: int) -> tuple[float, float]:
        """Messages and bytes a second; 0: no recent ones."""
        frames = self._frames
        if not frames or now_ms - frames[-1][0] > _FRESH_MS:
            frames.clear()
            return 0.0, 0.0
        span_s = (frames[-1][0] - frames[0][0]) / 1000
        if not span_s:
            return 0.0, 0.0
        return sum(frame[1] for frame in frames) / span_s, sum(frame[2] for frame in frames) / span_s
