"""Ranges over several shards in the order of their keys: merged as they come, passed on as they stand.

Nodes send rows in the form of ``cluster.evaluate.reading.row_parts``; ``proxy.spanning.row_merge`` orders
them. Another order needs all rows (``proxy.spanning.sorted_ranges``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead, end_fields
from cluster.evaluate.reading.row_parts import read_part
from cluster.placement import Placement
from cluster.wire.messages import HEAD, Method
from proxy.routing.router import MethodStats, Router, Waiting
from proxy.routing.waiting import OK, PARTIAL
from proxy.spanning.gather import Gather, range_requests
from proxy.spanning.row_merge import RowMerge

_RUNS = 1024  # are joined to one piece: short ones cost more to pass on than to copy
Pieces = Callable[[Any, int, int, list[bytes]], None]  # call, revision, term, the response after its header


class RowGather(Gather):
    """Rows of one read of several shards, in order."""

    __slots__ = ("_count", "_merge", "_request")

    def __init__(
        self, router: Router, call: Any, method: int, request: Any, placement: Placement,
        stats: MethodStats, failed: Callable[[Any, MethodStats, EtcdError], None],
    ) -> None:
        super().__init__(
            router, call, method, range_requests(request, placement), request.serializable, stats, _unused,
            failed,
        )
        self._request = request
        self._merge = RowMerge(0)
        self._count = 0

    def _read(self, order_index: int, latest: int, term: int) -> None:
        self._count = 0
        super()._read(order_index, latest, term)

    def _begin(self) -> None:
        self._merge = RowMerge(len(self._requests), max(self._request.limit, 0))

    def _part(self, waiting: Waiting, status: int, body: bytes) -> None:
        self._ends(waiting, status)
        tried, place, _ = waiting.context
        if self._gone() or tried != self._tries:
            self._drop(waiting, status)
            return
        if status not in (OK, PARTIAL):
            self._missed(status, body)
            return
        if self._is_behind(waiting, body):  # nothing is passed on yet: all shards' first rows are needed
            if status == PARTIAL:
                self._router.cancel(waiting)
            self._again()
            return
        starts, count = read_part(body, HEAD.size)
        self._count += count
        self._merge.add(place, body, starts, last=status == OK)
        if status == PARTIAL:
            waiting.pieces = []  # if its link breaks now, all begins again
        self._came(waiting, place, status == OK)

    def _came(self, waiting: Waiting, place: int, last: bool) -> None:
        raise NotImplementedError


class MergedRange(RowGather):
    """One answer."""

    __slots__ = ("_pieces", "_reply", "_runs")

    def __init__(
        self, router: Router, call: Any, request: Any, placement: Placement, stats: MethodStats,
        reply: Pieces, failed: Callable[[Any, MethodStats, EtcdError], None],
    ) -> None:
        super().__init__(router, call, Method.RANGE_ROWS, request, placement, stats, failed)
        self._reply = reply
        self._runs: list[bytes] = []
        self._pieces: list[bytes] = []

    def _read(self, order_index: int, latest: int, term: int) -> None:
        self._runs, self._pieces = [], []
        super()._read(order_index, latest, term)

    def _came(self, waiting: Waiting, place: int, last: bool) -> None:
        runs, merge = self._runs, self._merge
        merge.take(runs)
        ended = merge.ended
        if ended:
            runs.append(ending(self._request, self._count, merge.rows))
        if ended or len(runs) >= _RUNS:
            self._pieces.append(b"".join(runs))
            runs.clear()
        if ended:
            self._abandon()  # a limit may be reached before shards have said all
            call, self._call = self._call, None
            self._reply(call, self._order, self._term, self._pieces)


def ending(request: Any, count: int, rows: int) -> bytes:
    """What follows the rows. ``count``: keys of the range; ``rows``: what came out of the shards, which
    filter."""
    read = RangeRead(request)
    found = rows if read.filtered else count
    return end_fields(not read.count_only and 0 < read.limit < found, count)


def _unused(call: Any, revision: int, term: int, tails: list[bytes]) -> None:
    raise AssertionError("rows are answered as they come")
