"""A downgrade of the cluster's version: VALIDATE, ENABLE, CANCEL, with etcd 3.5's answers and errors.

muster has one version of what it keeps, so an enabled downgrade changes nothing. It is a note in the store,
which refuses a second downgrade until it is cancelled.
"""

from __future__ import annotations

import re
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.version import CLUSTER_VERSION

META = "downgrade"  # the row of the state that holds the target version
MOST_BYTES = 32  # of a target version
VALIDATE, ENABLE, CANCEL = 0, 1, 2

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_IDENTIFIERS = re.compile(r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")


def target_version(text: str) -> str:
    """The cluster version that a request names: "3.4" and "3.4.2-rc" are "3.4.0". EtcdError."""
    numbers = _numbers(text) or _numbers(text + ".0")
    if numbers is None:
        raise EtcdError(errors.WRONG_DOWNGRADE_VERSION_FORMAT)
    return f"{numbers[0]}.{numbers[1]}.0"


def _numbers(text: str) -> tuple[int, int] | None:
    """Major and minor of a semantic version, read as etcd's library does: signs and zeros in front pass."""
    text, _, metadata = text.partition("+")
    text, _, pre_release = text.partition("-")
    parts = text.split(".", 2)
    named = all(not part or _IDENTIFIERS.fullmatch(part) for part in (metadata, pre_release))
    if len(parts) != 3 or not named or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def check_target(text: str, enabled: bytes | None) -> str:
    """VALIDATE: the version that the cluster would have. EtcdError."""
    target = target_version(text)
    major, minor, _ = CLUSTER_VERSION.split(".")
    if target != f"{major}.{int(minor) - 1}.0":
        raise EtcdError(errors.INVALID_DOWNGRADE_TARGET_VERSION)
    if enabled is not None:
        raise EtcdError(errors.DOWNGRADE_IN_PROCESS)
    return target


def decide(request: Any, enabled: bytes | None) -> str:
    """ENABLE or CANCEL of a DowngradeRequest: what is to be noted; "": nothing any more. EtcdError."""
    if request.action == ENABLE:
        return check_target(request.version, enabled)
    if request.action != CANCEL:
        raise EtcdError(errors.UNKNOWN_DOWNGRADE_ACTION)
    if enabled is None:
        raise EtcdError(errors.NO_INFLIGHT_DOWNGRADE)
    return ""
