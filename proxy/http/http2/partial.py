"""Frames in pieces: a header block that CONTINUATION frames complete, and payload under padding."""

from __future__ import annotations

from proxy.http.http2.frames import ConnectionFault, ErrorCode
from proxy.http.http2.guard import Limits


class PartialBlock:
    """A header block whose CONTINUATION frames have not all come."""

    __slots__ = ("began", "ended", "fragments", "self_dependent", "size", "stream_id")

    def __init__(self, stream_id: int, ended: bool, self_dependent: bool, first: bytes, now: float) -> None:
        self.stream_id = stream_id
        self.ended = ended
        self.self_dependent = self_dependent
        self.fragments = [first]
        self.size = len(first)
        self.began = now

    def late(self, now: float, limits: Limits) -> bool:
        """Whether the rest has taken too long."""
        return now - self.began > limits.head_timeout_s


def unpad(payload: bytes) -> bytes:
    """Sections 6.1 and 6.2: the first octet says how many the padding has."""
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the pad length")
    if payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
