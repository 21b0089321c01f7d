"""What a front asks of a permission before a question about leases: their keys hang in every shard.

The sequencer's host judges by what it has: shard 0's keys. The others' replicas are asked beforehand, each
for its own. With auth off nothing is asked. A write is not asked for here: it locks what it looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.errors import EtcdError
from cluster.features.auth.reads import LEASE, Show
from cluster.wire.messages import Method
from proxy.routing.router import Router
from proxy.spanning.gather import Gather

Failed = Callable[[EtcdError], None]


def may_write_lease(
    router: Router, call: Any, shards: range, lease: int, then: Callable[[], None], failed: Failed
) -> None:
    """Go on if the call's client may write every key on the lease that hangs in these shards."""
    _ask(router, call, shards, bytes((Show.MAY_REVOKE,)) + LEASE.pack(lease), then, failed)


def may_list_leases(
    router: Router, call: Any, shards: range, then: Callable[[], None], failed: Failed
) -> None:
    """Likewise, if he may read every key on any lease."""
    _ask(router, call, shards, bytes((Show.MAY_LIST,)), then, failed)


def _ask(
    router: Router, call: Any, shards: range, body: bytes, then: Callable[[], None], failed: Failed
) -> None:
    if not shards or not router.principals.judged(call):
        then()
        return
    Gather(
        router,
        call,
        Method.AUTH_SHOW,
        [(shard, body) for shard in shards],
        False,
        router.quiet,
        lambda call, revision, term, blob: then(),
        lambda call, stats, error: failed(error),
    ).start()
