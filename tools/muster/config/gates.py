"""Feature gates of etcd 3.6 and 3.7: ``Gate=true,Other=false``; AllAlpha and AllBeta set a stage's other
gates.

LeaseCheckpointPersist has no effect of its own: the records of LeaseCheckpoint are always kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.muster.config.flags import GATES
from tools.muster.config.parse import FALSE, TRUE, ConfigError

STAGES = {
    "AllAlpha": (
        "CompactHashCheck", "InitialCorruptCheck", "LeaseCheckpoint", "LeaseCheckpointPersist",
        "PriorityRequest", "SetMemberLocalAddr", "StopGRPCServiceOnDefrag"),
    "AllBeta": ("FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"),
}  # fmt: skip
# of etcd's implementation
_NO_EFFECT = ("FastLeaseKeepAlive", "PriorityRequest", "TxnModeWriteWithSharedBuffer")


def named(text: str) -> dict[str, bool]:
    """The gates that a text names. ConfigError, in etcd's words."""
    found: dict[str, bool] = {}
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        gate, equals, value = (word.strip() for word in part.partition("="))
        if gate not in GATES:
            raise ConfigError(f"unrecognized feature gate: {gate}")
        if not equals:
            raise ConfigError(f"missing bool value for {gate}")
        if value not in TRUE + FALSE:
            raise ConfigError(
                f'invalid value of {gate}={value}, err: strconv.ParseBool: parsing "{value}": invalid syntax')
        found[gate] = value in TRUE
    return found


def gates_of(text: str) -> Mapping[str, bool]:
    """All gates. ConfigError."""
    given = named(text)
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
        for gate, value in named(text).items()
        if gate in _NO_EFFECT and value != GATES[gate]
    ]
