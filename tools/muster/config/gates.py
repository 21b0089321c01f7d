"""Feature gates of etcd 3.6 and 3.7: ``Gate=true,Other=false``; AllAlpha and AllBeta set a stage's other
gates.

LeaseCheckpointPersist has no effect of its own: the records of LeaseCheckpoint are always kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.muster.config.flags import GATES
from tools.muster.config.parse import ConfigError
from tools.muster.config.values import gates_named

STAGES = {
    "AllAlpha": (
        "CompactHashCheck", "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist",
        "PriorityRequest", "SetMemberLocalAddr", "StopGRPCServiceOnDefrag"),
    "AllBeta": ("FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"),
}  # fmt: skip
# of etcd's implementation
_NO_EFFECT = ("FastLeaseKeepAlive", "PriorityRequest", "TxnModeWriteWithSharedBuffer")


def gates_of(text: str) -> Mapping[str, bool]:
    """All gates. ConfigError."""
    given = gates_named(text)
    found = dict(GATES)
    for stage, gates in STAGES.items():
        if stage in given:
            found.update(dict.fromkeys(gates, given[stage]))
    found.update(given)
    if found["LeaseCheckpointPersist"] and not found["LeaseCheckpoint"]:
        raise ConfigError(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
    return found


def warnings_of(text: str) -> list[str]:
    """Of gates with another value than their default, without effect."""
    return [
        f"feature gate {gate} has no effect in muster"
        for gate, value in gates_named(text).items()
        if gate in _NO_EFFECT and value != GATES[gate]
    ]
