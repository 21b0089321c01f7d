"""Answers that a client would miss or not believe, taken out one at a time: checks that could pass idly must
bite, each by its own name. As ``order_mutants``."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import cluster.order.leading.attempts
import cluster.order.shown
import node.serving.watch.watches
import proxy.routing.router
import proxy.services.upkeep.maintenance
import proxy.spanning.gather
import proxy.watch.cohort
import proxy.watch.hub
import proxy.watch.stream
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.features.lessor import Lease, Lessor
from cluster.order.sequencing.fetching import Fetching
from cluster.order.shown import ShownRows
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.sim.mutants.mutant import HOT, Mutant, plan

Patch = pytest.MonkeyPatch
CALM = {"fault_every_s": 9.0}
# what is left of leases is noted, and sequencers change
CHECKPOINTS = {
    "mix": {"grant": 2, "lease_put": 60, "keep": 6, "ttl": 130}, "checkpoint_ms": 500, "think_s": 0.02,
    "faults": ("transfer",), "fault_every_s": 1.5, "seconds": 10.0,
}
# and few leases are kept alive, each now and then
KEPT = {
    **CHECKPOINTS, "mix": {"grant": 6, "lease_put": 40, "keep": 2, "ttl": 60}, "lease_ids": 3,
    "think_s": 0.04, "fault_every_s": 1.0,
}
LEASES = {"grant": 6, "lease_put": 10, "put": 4, "keep": 4, "ttl": 10}


# -- rows that are fetched


def no_rows_are_pinned(patch: Patch) -> None:
    """I22: what a transaction over several shards shows was there before it, whenever it is fetched."""
    keep = ShownRows.keep

    def anew(self: Any, attempt: Any, store: Any, touches: Any, places: Any) -> None:
        keep(self, attempt, store, touches, places)
        self._kept[attempt].pieces = _of_the_latest(store, [(place, touches[place]) for place in places])

    patch.setattr(ShownRows, "keep", anew)


def _of_the_latest(store: Any, touches: Any) -> Iterator[bytes]:
    for place, touch in touches:
        last = b""
        while True:
            rows = store.scan(touch.key, touch.range_end, touch.revision)
            row = next((row for row in rows if row[0] > last), None)
            if row is None:
                break
            last = row[0]
            yield cluster.order.shown.encode_piece(True, place, [row])
    yield cluster.order.shown.encode_piece(False, 0, ())


def pieces_are_left_out(patch: Patch) -> None:
    """I22: an answer is made of every row that was fetched."""
    came = Fetching.came

    def fewer(self: Any, ask: Any, piece: Any, now_ms: int) -> None:
        came(self, ask, piece, now_ms)
        if ask.attempt in self._running and piece is not None:
            more, place, rows = cluster.order.shown.decode_piece(piece)
            if more and ask.number == 0:
                self._running[ask.attempt].rows[ask.shard, place] = rows[1:]

    patch.setattr(Fetching, "came", fewer)


# -- leases


def no_lease_ever_expires(patch: Patch) -> None:
    """I15: a lease whose time is over ends."""
    patch.setattr(Lessor, "due", lambda self, now_ms, limit=0: [])


def leases_end_late(patch: Patch) -> None:
    """I15: a lease ends soon after its time; here six seconds later."""
    due = Lessor.due
    patch.setattr(Lessor, "due", lambda self, now_ms: due(self, now_ms - 6_000))


def time_to_live_is_always_the_same(patch: Patch) -> None:
    """I15: the answer tells what is left."""
    patch.setattr(
        Lessor, "time_to_live",
        lambda self, lease, now_ms: (1_000_000, self._leases[lease].ttl_s) if lease in self._leases else None,
    )


def checkpoints_are_not_cleared(patch: Patch) -> None:
    """H7: a keep-alive of a lease with a checkpoint logs the clearing first."""
    renew = Lessor.renew

    def without(self: Any, lease: int, now_ms: int) -> int | None:
        if (entry := self._leases.get(lease)) is None or entry.expired:
            return renew(self, lease, now_ms)
        kept = entry.remaining_s, entry.unapplied
        entry.remaining_s = entry.unapplied = 0
        try:
            return renew(self, lease, now_ms)
        finally:
            entry.remaining_s, entry.unapplied = kept

    patch.setattr(Lessor, "renew", without)


def no_checkpoint_is_logged(patch: Patch) -> None:
    """H7: what is left of a long lease is noted after each interval."""
    patch.setattr(Lessor, "due_checkpoints", lambda self, now_ms, limit=0: [])


def checkpoints_do_not_count(patch: Patch) -> None:
    """H7: a new sequencer gives a lease what its checkpoint says is left."""
    patch.setattr(Lease, "left_s", property(lambda self: self.ttl_s))


def any_replica_lists_the_leases(patch: Patch) -> None:
    """I22: the list of leases shows every grant and every end that was acknowledged before."""
    read = proxy.routing.router.Router.read

    def local(
        self: Any, call: Any, method: int, body: bytes, shard: int, serializable: bool, *rest: Any
    ) -> None:
        read(self, call, method, body, shard, serializable or method == Method.LEASE_LEASES, *rest)

    patch.setattr(proxy.routing.router.Router, "read", local)


def no_leases_are_listed(patch: Patch) -> None:
    """I22: nor is the list empty."""
    patch.setattr(Lessor, "unordered", lambda self: [])


# -- transactions


def compares_are_looked_at_once(patch: Patch) -> None:
    """I22: range compares that were looked at ahead are looked at again where the transaction is
    evaluated."""
    patch.setattr(RangeCompares, "look_again", lambda self, view, store: None)


def no_shard_decides_range_compares(patch: Patch) -> None:
    """I22: a range compare is about the keys of every shard that it meets, not shard 0's alone."""
    patch.setattr(
        cluster.order.leading.attempts, "decide", lambda compares, view, turn: bytes(len(compares)))


# -- hashes


def hashes_are_of_the_latest_revision(patch: Patch) -> None:
    """I19: a hash covers the versions up to the revision that it names."""
    start = proxy.spanning.gather.Gather.start
    patch.setattr(proxy.spanning.gather.Gather, "start",
                  lambda self, revision=0: start(self, 0 if self._method == Method.HASH_KV else revision))


def hashes_are_of_half_a_compaction(patch: Patch) -> None:
    """I19: all shards have removed the same versions."""

    def mixed(tails: list[bytes], revision: int, pruned: int) -> bytes:
        parts = [pb.HashKVResponse.FromString(tail) for tail in tails]
        value = zlib.crc32(b"".join(part.hash.to_bytes(4, "little") for part in parts))
        answer = pb.HashKVResponse(
            hash=value, compact_revision=parts[-1].compact_revision, hash_revision=revision
        )
        return answer.SerializeToString()

    patch.setattr(proxy.services.upkeep.maintenance, "hash_answer", mixed)


# -- watches


def watches_send_no_prev_kv(patch: Patch) -> None:
    """I16: an event carries what was there before, for a watch that asked for it."""
    subscribe = proxy.watch.hub.WatchHub.subscribe

    def without(self: Any, key: bytes, range_end: bytes, prev_kv: bool, revision: int) -> Any:
        return subscribe(self, key, range_end, False, revision)

    patch.setattr(proxy.watch.hub.WatchHub, "subscribe", without)


def no_watch_is_ever_confirmed(patch: Patch) -> None:
    """I16: a watch is confirmed, before its first event."""
    patch.setattr(proxy.watch.stream.WatchStream, "request", lambda self, request: None)


def progress_names_the_watermark(patch: Patch) -> None:
    """I16: a progress answer is not older than what this front had told anyone when it was asked for."""
    tell = proxy.watch.stream.WatchStream.tell_progress
    patch.setattr(proxy.watch.stream.WatchStream, "tell_progress", lambda self, owed: tell(self, 0))


def progress_overtakes_events(patch: Patch) -> None:
    """I16: it names a revision up to which every event has been sent."""
    patch.setattr(
        proxy.watch.stream.WatchStream, "_promised", lambda self, watches, least=0: self.hub.store_revision()
    )


def progress_requests_are_dropped(patch: Patch) -> None:
    """I16: a request is answered, once every watch of the stream has come so far."""
    patch.setattr(proxy.watch.hub.WatchHub, "ask_progress", lambda self, stream: None)


def nobody_is_notified_of_progress(patch: Patch) -> None:
    """I16: a watch that wants it is told from time to time how far it is."""
    patch.setattr(proxy.watch.stream.WatchStream, "periodic", lambda self, watch: None)


def filters_are_ignored(patch: Patch) -> None:
    """I16: a watch gets the events that it wants, and no others."""
    create = proxy.watch.stream.WatchStream._create

    def everything(self: Any, request: Any) -> None:
        del request.filters[:]
        create(self, request)

    patch.setattr(proxy.watch.stream.WatchStream, "_create", everything)


def fragments_are_not_marked(patch: Patch) -> None:
    """I16: a client knows whether a revision is whole."""
    patch.setattr(proxy.watch.cohort, "FRAGMENT", b"")


def compacted_watches_are_not_told_why(patch: Patch) -> None:
    """I24: a watch that needs what is compacted away ends, and names the compaction."""
    patch.setattr(proxy.watch.cohort, "compact_revision_field", lambda revision: b"")


def compactions_are_misnamed(patch: Patch) -> None:
    """I24: a client goes on from the compaction that a cancelled watch names."""
    field = proxy.watch.cohort.compact_revision_field
    patch.setattr(proxy.watch.cohort, "compact_revision_field", lambda revision: field(revision + 1))


def lost_watches_are_not_told(patch: Patch) -> None:
    """I16: what a front does not get, as it would be too much at once, it reads from history."""

    def forgotten(self: Any, links: set[Any]) -> Any:
        for link in links:
            link.lost.clear()
        yield

    patch.setattr(node.serving.watch.watches, "_EMIT_BYTES", 1)
    patch.setattr(node.serving.watch.watches.WatchSource, "_tell_lost", forgotten)


WATCHES = {**HOT, "watch": 3, "progress": 6}
SHOWN = {"put": 6, "wide": 20}
MUTANTS = [
    Mutant(
        compares_are_looked_at_once, ("I22",),
        plan(mix={"put": 10, "txn": 14, "delete": 3}, turn_rows=0, **CALM),
    ),
    Mutant(
        no_shard_decides_range_compares, ("I22",),
        plan(mix={"put": 10, "txn": 14, "delete": 3}, turn_rows=0, **CALM),
        first=2,
    ),
    Mutant(no_rows_are_pinned, ("I22",), plan(mix=SHOWN, many=1, clients=12, repeats=0.0, **CALM), first=1),
    Mutant(pieces_are_left_out, ("I22",), plan(mix=SHOWN, many=1, **CALM), first=2),
    Mutant(no_lease_ever_expires, ("I15 a lease ends",), plan(mix=LEASES, **CALM)),
    Mutant(leases_end_late, ("I15 a lease ends",), plan(mix=LEASES, faults=("heal",))),
    Mutant(checkpoints_are_not_cleared, ("H7 a new sequencer gives",), plan(**KEPT, shards=1)),
    Mutant(no_checkpoint_is_logged, ("H7 what is left",), plan(**{**CHECKPOINTS, **CALM})),
    Mutant(checkpoints_do_not_count, ("I15 a lease ends", "I15 time to live"),
           plan(**CHECKPOINTS, shards=1), first=1),
    Mutant(time_to_live_is_always_the_same, ("I15 time to live",), plan(mix=LEASES, **CALM)),
    Mutant(
        any_replica_lists_the_leases, ("I22 the leases are",),
        plan(mix={"grant": 8, "revoke": 8, "list": 20}, faults=("pause node", "cut pair", "heal")),
    ),
    Mutant(no_leases_are_listed, ("I22 the leases are",), plan(mix={**LEASES, "list": 4}, **CALM)),
    Mutant(
        hashes_are_of_the_latest_revision, ("I19 the same history", "I19 another history"),
        plan(mix={"put": 8, "hash": 8}, **CALM),
    ),
    Mutant(
        hashes_are_of_half_a_compaction, ("I19 the same history", "I19 another history"),
        plan(mix={"put": 8, "compact": 6, "hash": 20}, faults=("pause node",)),
    ),
    Mutant(watches_send_no_prev_kv, ("I16 what was there before",), plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(no_watch_is_ever_confirmed, ("I16 a watch is confirmed",), plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(progress_names_the_watermark, ("I16 progress covers",), plan(mix=WATCHES, **CALM), first=2),
    Mutant(progress_overtakes_events, ("I16 progress comes behind",), plan(mix=WATCHES, **CALM)),
    Mutant(progress_requests_are_dropped, ("I16 progress is told when",), plan(mix=WATCHES, **CALM)),
    Mutant(nobody_is_notified_of_progress, ("I16 progress is told from",), plan(mix=WATCHES, **CALM)),
    Mutant(filters_are_ignored, ("I16 every event once",), plan(mix=WATCHES, **CALM)),
    Mutant(fragments_are_not_marked, ("I16 every event once",), plan(mix=WATCHES, **CALM)),
    Mutant(
        compacted_watches_are_not_told_why, ("I16 a watch ends for a reason",),
        plan(mix={**WATCHES, "compact": 4}, **CALM),
    ),
    Mutant(lost_watches_are_not_told, ("I16 every event once", "I16 progress comes behind"),
           plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(compactions_are_misnamed, ("I24 compacted only",), plan(mix={**WATCHES, "compact": 4}, **CALM)),
]
