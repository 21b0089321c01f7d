"""Requests over several shards, as one front puts them together.

A range is read at one revision everywhere: a read index gives ``(order index, revision R)``, the replica on
this host of every shard that owned a part of it at R (G2) answers at R once it has applied that order index,
and the rows are merged by key (section 4). A serializable one reads at the lowest revision that all of the
host's replicas have applied (H17), once this host has shown nothing newer. A latest-read that meets a
compaction starts over with a new R (H16). So does a read that meets a change of the table (G7), or whose link
ends within a large answer.

Read-only transactions go the same way (``proxy.spanning.read_txns``, ``proxy.spanning.range_txns``); other
writes and transactions over several shards go to the sequencer as one (``Method.WIDE``).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from cluster.wire.messages import HASH_OF_NOTHING, HEAD, READ, READ_INDEX_ANSWER
from proxy.routing.links import Link
from proxy.routing.router import READ_ANY, MethodStats, Router, Waiting
from proxy.routing.waiting import MOVED, OK, PARTIAL, PartWaiting

_TRIES = 5  # of a latest-read that meets compactions
_BOUNDS = ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision")
# call, revision, term, the shards' responses after their headers: each as bytes, or as its pieces (InPieces)
Answer = Callable[[Any, int, int, list[Any]], None]
# what is asked of which shard at a revision, by the newest table; 0: of those that own it now
Ask = Callable[[int], list[tuple[int, bytes]]]


class Gather:
    """One read of several shards at one revision."""

    __slots__ = (
        "_answer", "_ask", "_call", "_failed", "_held", "_limit", "_method", "_most", "_order", "_parts",
        "_requests", "_router", "_stats", "_tails", "_term", "_tries", "order_index", "revision",
        "serializable",
    )

    def __init__(
        self, router: Router, call: Any, method: int, ask: Ask, serializable: bool, stats: MethodStats,
        answer: Answer, failed: Callable[[Any, MethodStats, EtcdError], None],
    ) -> None:
        """``answer`` gets the answers in the order of what is asked. Else ``failed`` is called, once, also
        where the call was given up."""
        self._router = router
        self._call = call
        self._method = method
        self._ask = ask
        self._requests: list[tuple[int, bytes]] = []
        self._stats = stats
        self._answer = answer
        self._failed = failed
        self._tails: dict[int, list[bytes]] = {}  # by place in requests
        self._parts: dict[int, Waiting] = {}  # likewise: of this attempt, still on their way
        self._term = 0
        self._order = 0  # 0: it is not known yet which shards are asked
        self._held = 0  # bytes that its client held before: of other answers
        self._tries = 0
        self._most = _TRIES
        self.order_index = 0  # that the revision needs applied, once it is known
        self.revision = 0  # the request's own; 0: the latest
        self.serializable = serializable

    def start(self, revision: int = 0) -> None:
        """Begin; ``revision`` is what the request names."""
        self._abandon()
        self.revision, self._order = revision, 0
        if not self.serializable:
            self._router.index(self._indexed)
        else:
            self._wait_for(self._shards(0))

    def _wait_for(self, shards: tuple[int, ...]) -> None:
        self._router.recent.when_caught_up(shards, partial(self._serializable, shards))

    def _shards(self, revision: int) -> tuple[int, ...]:
        return tuple(sorted({shard for shard, _ in self._ask(revision)}))

    def at(self, order_index: int, revision: int, latest: int, term: int) -> None:
        """Begin at a known revision. ``latest``: the newest one when it was found; it needs this order index
        applied."""
        self.revision = revision
        self._read(order_index, latest, term)

    def _serializable(self, waited: tuple[int, ...]) -> None:
        """H17: one revision for all, the lowest applied; not below what this host has shown, unless cut off.
        The replicas decide on a named one: what this front knows of them may be old. ``waited``: for these
        shards; others may own keys by now, or before a move."""
        try:
            owners = self._shards(self.revision)
            revision = self._applied(owners)
            # of what has moved since, its owner then must have applied it
            while not self.revision and (applied := self._applied(then := self._shards(revision))) < revision:
                revision = applied
                owners += then
        except EtcdError as e:  # below the pruning
            self._refused(e)
            return
        if not {*owners}.issubset(waited) and revision < self._router.recent.highest:
            self._wait_for(tuple(sorted({*owners, *waited})))
            return
        if revision:
            self._read(0, max(revision, self.revision), self._router.routes[0].term)
        else:
            # a shard of which this host has no replica now, and no other answers
            self._fail(EtcdError(errors.TIMEOUT))

    def _applied(self, shards: tuple[int, ...]) -> int:
        """The lowest revision that their replicas are known to have applied; 0: one has none."""
        return min(link.revision if (link := self._replica(s)) is not None else 0 for s in shards)

    def _replica(self, shard: int) -> Link | None:
        """The one that is asked."""
        return self._router.routes[shard].replica

    def _send(self, waiting: Waiting) -> None:
        self._router.to_replica(waiting)

    def _indexed(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status != OK:
            self._fail(EtcdError.decode(body))
            return
        order_index, latest, term = READ_INDEX_ANSWER.unpack(body)
        self._read(order_index, latest, term)

    def _read(self, order_index: int, latest: int, term: int) -> None:
        if self.revision > latest:
            self._fail(EtcdError(errors.FUTURE_REV))
            return
        if self._gone():
            return
        self._order, self._term, self.order_index = latest, term, order_index
        self._tails = {}
        router, call = self._router, self._call
        if not self._tries:
            self._held = call.gathered
        else:  # what came before is dropped
            call.gather(self._held - call.gathered)
        try:
            self._requests = self._ask(self.revision or latest)
        except EtcdError as e:  # below the pruning
            self._refused(e)
            return
        self._begin()
        prefix = READ.pack(order_index, self.revision or latest)
        for place, (shard, request) in enumerate(self._requests):
            waiting = PartWaiting(
                self._call, self._method, request, shard, READ_ANY, router.loop.time(), router.limit_s,
                router.quiet)
            waiting.then, waiting.context, waiting.prefix = self._part, (self._tries, place, []), prefix
            self._parts[place] = waiting
            self._send(waiting)

    def _abandon(self) -> None:
        """Nobody else tells nodes that have sent a window. What has come of these parts counts no longer by
        itself: it is not let go once more as their links end."""
        parts, self._parts = self._parts, {}
        for waiting in parts.values():
            self._router.cancel(waiting)

    def _begin(self) -> None:
        """It is known of which shards answers will come."""

    def _part(self, waiting: Waiting, status: int, body: bytes) -> None:
        pieces: list[bytes]
        self._ends(waiting, status)
        tried, place, pieces = waiting.context
        gone = self._gone()
        begins = status in (OK, PARTIAL) and not pieces and not gone
        if tried == self._tries and begins and self._is_behind(waiting, body):
            self._again()
        # of an attempt that was given up: at another revision than the others' (H16)
        if gone or tried != self._tries:
            self._drop(waiting, status)
            return
        if status == PARTIAL:
            pieces.append(body if pieces else body[HEAD.size :])
            waiting.pieces = pieces  # if its link breaks now, all begins again
            return
        if status != OK:
            self._missed(status, body)
            return
        pieces.append(body if pieces else body[HEAD.size :])
        self._tails[place] = pieces
        if len(self._tails) == len(self._requests):
            tails = [self._whole(self._tails[at]) for at in range(len(self._requests))]
            call, self._call = self._call, None
            self._answer(call, self._order, self._term, tails)

    def _ends(self, waiting: Waiting, status: int) -> None:
        """It is on its way no more, unless this is but a piece."""
        tried, place, _ = waiting.context
        if status != PARTIAL and tried == self._tries:
            self._parts.pop(place, None)

    def _drop(self, waiting: Waiting, status: int) -> None:
        """Nobody wants this part any more, or any at all."""
        if self._call is None:
            self._abandon()  # they and this one refer to each other
        if status == PARTIAL:
            self._router.cancel(waiting)

    def _gone(self) -> bool:
        """Whether nobody waits for an answer any more. ``failed`` hears of a client that has gone."""
        if self._call is not None and self._call.closed:
            self._fail(EtcdError(errors.CONTEXT_CANCELED))
        return self._call is None

    def _whole(self, pieces: list[bytes]) -> bytes | list[bytes]:
        return b"".join(pieces)

    def _is_behind(self, waiting: Waiting, body: bytes) -> bool:
        """Whether another replica answers than the one that was known, and has less than the header will say:
        it judges by older users."""
        (applied, _), asked = HEAD.unpack_from(body), self.revision or self._order
        assert applied >= asked, f"I14: shard {waiting.shard} answers at {applied}, {asked} was asked for"
        return self.serializable and applied < self._order

    def _missed(self, status: int, body: bytes) -> None:
        if status == MOVED:  # by the newer table, which has come: no more often than one comes
            self._tries += 1
            self._most += 1
            self.start(self.revision)
        else:
            self._refused(EtcdError.decode(body))

    def _refused(self, error: EtcdError) -> None:
        lost = error.kind is errors.TIMEOUT_DUE_TO_LEADER_FAIL and not self._router.draining
        if lost and self._tries < self._most:
            self._tries += 1  # a link has ended within a large answer, or the shard was dropped
            self.start(self.revision)
            return
        # H16; or another replica than the one it was sent to answers, and is behind it
        passing = error.kind is errors.COMPACTED or (error.kind is errors.FUTURE_REV and self.serializable)
        if not passing or self.revision:
            self._fail(error)
            return
        if self._tries == self._most and not self.serializable:
            self._fail(error)
            return
        self._again()

    def _again(self) -> None:
        if self._tries == self._most:
            # a replica here is behind what the others have compacted, and no old revision was asked for
            self.serializable, self._most = False, 2 * _TRIES
        self._tries += 1
        self.start(self.revision)

    def _fail(self, error: EtcdError) -> None:
        call, self._call = self._call, None
        self._abandon()
        if call is not None:
            self._failed(call, self._stats, error)


class InPieces(Gather):
    """Hands answers on as they came: to join many large ones at once would hold up the loop."""

    __slots__ = ()

    def _whole(self, pieces: list[bytes]) -> list[bytes]:
        return pieces


class OfOwnHost(Gather):
    """Of this host's own replicas, which may differ from others'; at a proxy, of any."""

    __slots__ = ()

    def _replica(self, shard: int) -> Link | None:
        return self._router.own_link(shard)

    def _send(self, waiting: Waiting) -> None:
        self._router.to_own(waiting)


def range_requests(request: Any, placement: Placement) -> Ask:
    """What each shard is asked: the rows that may be in the answer, and the count."""
    whole = RangeRead(request)
    part = rpc_pb2.RangeRequest(key=request.key, range_end=request.range_end)
    if whole.count_only:
        part.count_only = True
    elif whole.row_limit is not None:
        part.limit = whole.row_limit
    else:
        for name in _BOUNDS:
            setattr(part, name, getattr(request, name))
        if whole.limit and (request.sort_order or request.sort_target):
            # the first rows of all are among the first of each shard; one more tells that there are more
            part.sort_order, part.sort_target, part.limit = (
                request.sort_order, request.sort_target, whole.limit + 1,
            )
    if request.keys_only and request.sort_target != rpc_pb2.RangeRequest.VALUE:
        part.keys_only = True
    asked = part.SerializeToString()
    key, end = request.key, request.range_end
    return lambda revision: [(shard, asked) for shard in placement.shards_at(key, end, revision)]


def hash_answer(tails: list[bytes], revision: int, pruned: int = 0) -> bytes | None:
    """HashKVResponse after its header: one hash of the shards', in their order. None if a compaction has come
    to some shards only: their hashes do not cover the same versions. Nor does one that has not come to the
    pruning: by its own table, versions may stand with a shard that was not asked (G2, G6).

    A shard that counts nothing leaves no trace: it may have been born behind the revision, or be gone when
    the same is asked again (I19). The hash of one shard's versions is that shard's, as of a store of one."""
    parts = [rpc_pb2.HashKVResponse.FromString(tail) for tail in tails]
    compacted = parts[0].compact_revision
    if max(compacted, 0) < pruned or any(part.compact_revision != compacted for part in parts):
        return None
    counted = [part.hash for part in parts if part.hash != HASH_OF_NOTHING] or [HASH_OF_NOTHING]
    value = counted[0]
    if len(counted) > 1:
        value = zlib.crc32(b"".join(of_shard.to_bytes(4, "little") for of_shard in counted))
    return rpc_pb2.HashKVResponse(
        hash=value, compact_revision=compacted, hash_revision=revision
    ).SerializeToString()
