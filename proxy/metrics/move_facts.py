"""The gauges of a move of keys in /metrics: at the host whose node leads shard 0, since that drives moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from cluster.order.moving.mover import ALARM_AFTER

_STEPS = {"copying": 1, "switching": 2, "pausing": 3}
# name, the fact of a host's copy, what makes the figure of it, help
_OF_HOSTS = (
    ("muster_move_copied_keys", "keys", 1, "Keys in the host's copy."),
    ("muster_move_copied_bytes", "bytes", 1, "Bytes copied to the host."),
    ("muster_move_lag_seconds", "lag_ms", 0.001, "How far the host's copy is behind."),
)


def move_samples(found: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    """``found``: the facts of this host's nodes (``node.upkeep.facts``)."""
    leader = next((facts for facts in found if not facts["shard"] and facts.get("role") == "leader"), None)
    if leader is None:
        return
    move: dict[str, Any] = leader.get("move", {})
    failed = move.get("failed_switches", 0)
    for name, text, value in (
        ("number", "Number of the running move; 0: none.", move.get("move", 0)),
        ("step", "Step of the move: 1 copying, 2 switching, 3 a pause after a failed switch; 0: no move.",
         _STEPS.get(move.get("step", ""), 0)),
        ("failed_switches", "Failed switches of the move.", failed),
        ("alarm", f"Whether {ALARM_AFTER} switches of the move failed.", int(failed >= ALARM_AFTER)),
    ):
        yield GaugeMetricFamily(f"muster_move_{name}", text, value)
    for name, fact, unit, text in _OF_HOSTS:
        family = GaugeMetricFamily(name, text, labels=["member"])
        for member, copy in move.get("hosts", {}).items():
            if copy[fact] >= 0:  # else it is not known
                family.add_metric([member], copy[fact] * unit)
        if family.samples:
            yield family
