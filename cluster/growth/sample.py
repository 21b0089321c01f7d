"""Which keys a node's load is on: a decayed sample, weighted by cost.

One request in so many is looked at, and stands for all that passed since the one before. So a second costs at
most :data:`MOST_PER_S` looks, whatever the load, and an idle node knows each request. The sample is the last
:data:`MOST` of them. Each counts half as much after :data:`HALF_LIFE_S`; that is reckoned from its age when
the sample is read, so nothing grows with the time that a node is up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from math import log
from typing import NamedTuple

MOST = 1000
HALF_LIFE_S = 60.0
MOST_PER_S = 12  # a full sample is of at least the last 80 s
MOST_KEY_BYTES = 256  # of a longer key the beginning is kept
MOST_SPANS = 8  # of a transaction
_FORGOTTEN = 10 * HALF_LIFE_S  # it counts for less than a thousandth
_MULTIPLIER, _MODULUS = 48271, (1 << 31) - 1  # Park and Miller's

Span = tuple[bytes, bytes]  # as requests spell them: an empty end is the one key


class Weighed(NamedTuple):
    """A request of the sample."""

    key: bytes
    weight: float  # its cost and that of those that it stands for, decayed; in plain puts
    age_s: float
    spans: tuple[Span, ...] = ()  # all that a transaction or a range touches


class Sample:
    def __init__(self, seed: int = 1) -> None:
        """``seed``: of the intervals, which must not be in step with the load's own."""
        self._kept: deque[tuple[int, bytes, float, tuple[Span, ...], bool]] = deque(maxlen=MOST)
        self._state = seed % (_MODULUS - 1) + 1
        self._interval = 1.0  # requests from one look to the next, on average
        self._looks = 0  # since the last second
        self._passed = 0  # requests since the last look
        self._seen = 0.0  # requests in looks of this second
        self._since_ms = 0  # the first look
        self.skip = 0  # requests that may pass until the next look

    def pick(self, count: int) -> tuple[int, int]:
        """A frame of ``count`` requests is more than :attr:`skip` before it was taken off: which request of
        it is looked at, and for how many that stands. :attr:`skip` is of what follows the frame."""
        at = self.skip + count  # the skip is negative by now
        if self._interval < count:
            at = int(self._random() * count)  # the first of a frame may always be the same client's
        stands = self._passed + at + 1
        left = count - at - 1
        self._looks += 1
        self._seen += stands
        if self._looks > 2 * MOST_PER_S:
            self._looks, self._interval = 0, self._interval * 2
        drawn = int(self._random() * 2 * self._interval) if self._interval > 1 else 0
        self.skip = max(drawn - left, 0)
        self._passed = left + self.skip
        return at, stands

    def second(self) -> None:
        """Each second: look as often as the load asks for."""
        self._interval = max(self._seen / MOST_PER_S, self._interval / 2, 1.0)
        self._looks, self._seen = 0, 0.0
        most = int(2 * self._interval)
        if self.skip > most:  # the load has gone: what comes is looked at soon
            self._passed = self.skip = most

    def take(
        self, now_ms: int, key: bytes, weight: float, spans: Sequence[Span] = (), joined: bool = False
    ) -> None:
        """``joined``: it comes by a front in this process."""
        cut = tuple((a[:MOST_KEY_BYTES], b[:MOST_KEY_BYTES]) for a, b in spans[:MOST_SPANS])
        if not self._since_ms:
            self._since_ms = now_ms
        self._kept.append((now_ms, key[:MOST_KEY_BYTES], weight, cut, joined))

    def weighed(self, now_ms: int) -> list[Weighed]:
        """Those that still count, the oldest first."""
        return [one for one, _ in self._weighed(now_ms)]

    def _weighed(self, now_ms: int) -> Iterator[tuple[Weighed, bool]]:
        for then_ms, key, weight, spans, joined in self._kept:
            age_s = max(now_ms - then_ms, 0) / 1000
            if age_s < _FORGOTTEN:
                yield Weighed(key, weight * 0.5 ** (age_s / HALF_LIFE_S), age_s, spans), joined

    def joined(self, now_ms: int) -> float:
        """The share of the load that comes by a front in this process."""
        found = [(one.weight, joined) for one, joined in self._weighed(now_ms)]
        total = sum(weight for weight, _ in found)
        return sum(weight for weight, joined in found if joined) / total if total > 0 else 0.0

    def rate(self, now_ms: int) -> float:
        """The load, in plain puts a second, as the last minutes were."""
        found = self.weighed(now_ms)
        if not found:
            return 0.0
        seen_s = found[0].age_s if len(self._kept) == MOST else (now_ms - self._since_ms) / 1000
        known: float = 1 - 0.5 ** (max(seen_s, 1.0) / HALF_LIFE_S)  # what came before would weigh the rest
        return sum(one.weight for one in found) * log(2) / HALF_LIFE_S / known

    def _random(self) -> float:
        self._state = self._state * _MULTIPLIER % _MODULUS
        return self._state / _MODULUS
