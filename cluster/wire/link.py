"""The asking end of a link to a node, pure: its hello, the numbers of its frames, its version, silence.

Fronts, nodes of other shards and the status tool use it. A frame out of sequence means that frames were lost,
and a link never resumes: its owner drops it and makes another one, under another session.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.wire import frames
from cluster.wire.messages import (
    HELLO_BODY,
    SEQUENCE,
    SPOKEN,
    Method,
    Status,
    decode_answers,
    request,
)

Answers = list[tuple[int, int, bytes]]  # rid, status, body

_VERSIONS = int(Status.VERSIONS)


class Listening:
    """Whether a side could have heard anything at all. It looks at intervals whether others are silent. A
    look that comes late shows that its own loop was held: what came meanwhile is not read yet, so that time
    is no silence."""

    __slots__ = ("_late_s", "_looked", "held_s")

    def __init__(self, late_s: float) -> None:
        """``late_s``: a look that comes so long after the one before is late."""
        self._late_s = late_s
        self._looked: float | None = None
        self.held_s = 0.0  # by so much the last look came late

    def look(self, now: float) -> float:
        """Until when silence may be judged: what came before has been read. ``held_s`` is then to be excused
        (:meth:`AskingEnd.excuse`)."""
        before, self._looked = self._looked, now
        if before is None or now - before <= self._late_s:
            self.held_s = 0.0
            return now
        self.held_s = now - before - self._late_s
        return before


class Broken(Exception):
    """The link is over; the text says why."""


class AskingEnd:
    """One link's end."""

    __slots__ = ("_unfinished", "came", "heard_at", "prefix", "sent", "version")

    def __init__(self, prefix: bytes = b"", now: float = 0.0) -> None:
        """``prefix``: what frames begin with where the link shares a socket with others
        (``PeerKind.FRONT``)."""
        self.prefix = prefix
        self.sent = 0  # frames
        self.came = 0
        self.heard_at = now  # when the last frame came, or more of an unfinished one
        self._unfinished = 0  # bytes of that, at the last look
        self.version = frames.LOWEST  # until the node has said what it speaks

    def hello(self, cluster_id: int, member_id: int, session: int, layout: tuple[int, int] = (0, 0)) -> bytes:
        """The first record: the lowest version; the range of versions is where older nodes do not look."""
        body = HELLO_BODY.pack(frames.LOWEST, cluster_id, member_id, session, *layout)
        return request(0, Method.HELLO, frames.HIGHEST << 16 | frames.LOWEST, body)

    def frame(self, records: Iterable[bytes]) -> bytes:
        """The next frame."""
        self.sent += 1
        return b"".join([self.prefix, SEQUENCE.pack(self.sent), *records])

    def not_sent(self) -> None:
        """The last frame was not taken, so its number is free again."""
        self.sent -= 1

    def opened(self, data: bytes, now: float) -> Answers:
        """The answers of a frame that has come. Raises Broken."""
        if self.prefix:
            if data[:1] != self.prefix:
                return []  # a peer's traffic: not for an asking end
            data = data[1:]
        try:
            sequence, answers = decode_answers(data)
        except (ValueError, IndexError) as e:
            raise Broken("it sent a broken frame") from e
        if sequence != self.came + 1:
            raise Broken(f"frame {sequence} where {self.came + 1} was due")
        self.came = sequence
        self.heard_at = now
        if sequence == 1:
            answers = self._without_versions(answers)
        return answers

    def silent(self, now: float, limit_s: float, unfinished: int = 0) -> bool:
        """Whether nothing has come for so long. ``unfinished``: bytes that have come of the next frame."""
        if unfinished != self._unfinished:
            self._unfinished = unfinished
            if unfinished:
                self.heard_at = max(self.heard_at, now)
        return now - self.heard_at > limit_s

    def excuse(self, held_s: float, now: float) -> None:
        """For so long this end did not listen (``Listening``): that is no silence of the other."""
        self.heard_at = min(self.heard_at + held_s, now)

    def _without_versions(self, answers: Answers) -> Answers:
        kept = []
        for answer in answers:
            if answer[1] == _VERSIONS and len(answer[2]) == SPOKEN.size:
                self.version = frames.agreed(*SPOKEN.unpack(answer[2])) or frames.LOWEST
            else:
                kept.append(answer)
        return kept


def spoken_by(version: int, spoken: int) -> tuple[int, int]:
    """Lowest and highest version of a hello's sender: its body's version, and its time-out field, 0 in
    version 7."""
    return (spoken & 0xFFFF, spoken >> 16) if spoken else (version, version)
