"""What this host's nodes report (``node.upkeep.facts``), gathered by a front, and its gauges in /metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from cluster.placement.table import State
from cluster.wire.messages import HEAD, Method
from proxy.routing.router import Waiting
from proxy.routing.waiting import Then
from proxy.shared.context import Context

LIMIT_S = 2.0  # for an answer: a scraper waits for several, 10 s as a rule

ShardFacts = dict[str, Any]


def gather(context: Context, done: Callable[[list[ShardFacts]], None], anywhere: bool = False) -> None:
    """Ask this host's node of every shard; one that does not answer in time is ``{"up": False}``.
    ``anywhere``: at a proxy, which has none, any host's."""
    router = context.router
    found: dict[int, ShardFacts] = {
        shard: {"shard": shard, "up": False, "state": known.state.name.lower()}
        for shard, known in sorted(context.placement.table.shards.items()) if known.state != State.DROPPED}
    anywhere = anywhere and not context.common.member_id
    asked = [shard for shard, route in router.routes.items()
             if (route.replica if anywhere else route.home) is not None]
    missing = len(asked)

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        nonlocal missing
        missing -= 1
        if status == 0 and waiting.shard in found:
            state = found[waiting.shard]["state"]
            found[waiting.shard] = {"up": True, **json.loads(body[HEAD.size:]), "state": state}
        if not missing:
            done(list(found.values()))

    if not asked:
        done(list(found.values()))
    for shard in asked:
        ask_own(context, shard, Method.FACTS, answer)


def ask_own(context: Context, shard: int, method: int, then: Then) -> None:
    """Ask this host's node of a shard (``router.own``), for as long as a scraper waits."""
    context.router.own(None, method, b"", shard, context.router.quiet, then, limit_s=LIMIT_S)


def samples(found: Sequence[ShardFacts]) -> Iterator[Metric]:
    found = [facts for facts in found if facts["state"] != "forming"]
    up = [facts for facts in found if facts["up"]]
    text = "Whether this host's node of the shard answers."
    answers = GaugeMetricFamily("muster_shard_up", text, labels=["shard"])
    text = "Whether this host leads the shard."
    leads = GaugeMetricFamily("muster_shard_is_leader", text, labels=["shard"])
    for facts in found:
        answers.add_metric([str(facts["shard"])], int(facts["up"]))
        leads.add_metric([str(facts["shard"])], int(facts.get("role") == "leader"))
    yield from (answers, leads)
    for name, fact, text in _GAUGES:
        family = GaugeMetricFamily(name, text, labels=["shard"])
        for facts in up:
            if fact in facts:
                family.add_metric([str(facts["shard"])], facts[fact])
        if family.samples:
            yield family


# name, the fact, help
_GAUGES = (
    ("muster_shard_term", "term", "Raft term of the shard, as this host's node knows it."),
    ("muster_shard_commit_index", "commit_index", "Index that is committed in the shard's group."),
    ("muster_shard_applied_index", "applied_index", "Index of the shard's log that is applied here."),
    ("muster_shard_order_index", "order_index", "Index of the order log that is applied here."),
    ("muster_shard_revision", "revision", "Revision that is applied here."),
    ("muster_shard_keys", "keys", "Keys here; -1 while they are being counted."),
    ("muster_shard_db_size_bytes", "size_bytes", "Size of the shard's state on disk."),
    ("muster_shard_resident_memory_bytes", "resident_bytes",
     "Memory of the process that holds the shard's node."),
    ("muster_shard_locks", "locks", "Footprints locked or waiting for a lock, at the shard's leader."),
    ("muster_shard_unordered_entries", "unordered_entries",
     "Entries of the leader that no cut has put in order yet."),
    ("muster_shard_feed_lag", "feed_lag",
     "Order records that the feed's source has committed and this node has not applied."),
    ("muster_shard_feed_remote", "feed_remote", "Whether the feed is taken from another host."),
    ("muster_shard_leader_handovers", "handovers", "Leaderships that this node has given away."),
    ("muster_order_cuts", "cuts", "Cuts appended by this sequencer's process."),
    ("muster_order_multis", "multis",
     "Transactions over several shards that this sequencer's term has completed."),
    ("muster_order_restarts", "restarts",
     "Attempts at transactions over several shards that were released and begun again."),
    ("muster_order_running", "running", "Transactions over several shards that hold or want locks."),
    ("muster_order_queued", "queued", "Transactions over several shards that wait for others."),
    ("muster_order_feed_records", "feed_records", "Order records sent to nodes of other shards."),
    ("muster_order_records_lacking", "records_lacking",
     "Order records that a node of this host has lacked for 10 s; 0: this host could continue alone."),
    ("muster_order_kept_bytes", "kept_bytes",
     "Bytes of files that keep the order for shards without a majority."),
)
