"""Looks at some of a node's requests, for the sample of its keys (``cluster.growth.sample``).

Hot path: a frame costs a call and three lines, 0.1 us. With ``--growth off`` nothing is called.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint
from cluster.features.auth.principal import SAID, split
from cluster.growth.sample import Sample
from cluster.wire.messages import LONE_HEAD, OF_KEYS, READ, Method
from node.links.fronts import FrontLink, Request

PassOn = Callable[[FrontLink, list[Request]], None]
# what a request costs a node, in plain puts
_READ, _RANGE, _MORE_SPANS, _BYTES = 0.5, 2.0, 0.5, 8192
_MOST_READ_BYTES = 64 << 10  # of a transaction; what is in a larger one is not looked at
_READS = frozenset(map(int, (
    Method.RANGE, Method.RANGE_STREAM, Method.RANGE_ROWS, Method.STREAM_ROWS, Method.READ_TXN)))
_NEVER = 1 << 62


class Sampling:
    """Of one node."""

    def __init__(self, now_ms: Callable[[], int], seed: int) -> None:
        self.sample = Sample(seed)
        self.failed: Exception | None = None  # a mistake in here: it looks at nothing any more
        self._now_ms = now_ms

    def before(self, pass_on: PassOn) -> PassOn:
        """``pass_on``, with a look at some of the requests before."""
        sample, look = self.sample, self._look

        def requests(link: FrontLink, requests: list[Request]) -> None:
            sample.skip -= len(requests)
            if sample.skip < 0:
                look(link, requests)
            pass_on(link, requests)

        return requests

    def second(self) -> None:
        if self.failed is None:
            self.sample.second()

    def _look(self, link: FrontLink, requests: list[Request]) -> None:
        try:
            at, stands = self.sample.pick(len(requests))
            _, method, _, body = requests[at]
            self._take(method, body, stands, link.pass_on is not None)
        except EtcdError:  # the request is refused for what is wrong with it
            return
        except Exception as error:  # whatever it is, requests must go on
            self.failed = error
            self.sample.skip = _NEVER

    def _take(self, method: int, body: bytes, stands: int, joined: bool) -> None:
        if method & SAID:
            _, body = split(body)
            method &= ~SAID
        if method == Method.WIDE:
            method, body = body[0], body[1:]
        elif method == Method.LONE:
            method, body = int(Method.PUT), body[LONE_HEAD.size :]
        reads = method in _READS
        if not (reads or method in OF_KEYS) or (len(body) > _MOST_READ_BYTES and method != Method.PUT):
            return
        if method in (Method.RANGE_ROWS, Method.STREAM_ROWS):
            method = int(Method.RANGE)
        found = footprint(method, body[READ.size :] if reads else body)
        spans = [*found.writes, *found.reads]
        if not spans or not spans[0][0]:
            return
        cost = (_READ if reads else 1.0) + _MORE_SPANS * (len(spans) - 1) + len(body) / _BYTES
        if any(end for _, end in spans):
            cost += _RANGE
        several = len(spans) > 1 or spans[0][1] != b""
        self.sample.take(self._now_ms(), spans[0][0], stands * cost, spans if several else (), joined)
