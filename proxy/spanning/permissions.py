"""A front's questions of permission before a request about leases, whose keys lie in every shard.

The sequencer's host judges by shard 0's keys, so all shards' replicas are asked first, with auth on. A write
locks what it looks at: it is not asked for here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.errors import EtcdError
from cluster.features.auth.reads import LEASE, Show
from cluster.placement import Placement
from cluster.wire.messages import Method
from proxy.routing.router import Router
from proxy.spanning.gather import Gather

Failed = Callable[[EtcdError], None]


def may_write_lease(
    router: Router, call: Any, placement: Placement, lease: int, then: Callable[[], None], failed: Failed
) -> None:
    """Go on if the call's client may write every key on the lease, in any shard. Where one shard is known,
    the sequencer's verdict suffices, if no other is known once it has come."""
    if len(placement.running) == 1:
        then()
        return
    _ask(router, call, placement, bytes((Show.MAY_REVOKE,)) + LEASE.pack(lease), then, failed)


def may_list_leases(
    router: Router, call: Any, placement: Placement, then: Callable[[], None], failed: Failed
) -> None:
    """Likewise, if it may read every key on any lease. A front that just began knows of too few shards: it
    asks in any case, for the newest table comes before the read index."""
    _ask(router, call, placement, bytes((Show.MAY_LIST,)), then, failed)


def _ask(
    router: Router, call: Any, placement: Placement, body: bytes, then: Callable[[], None], failed: Failed
) -> None:
    if not router.principals.judged(call):
        then()
        return
    Gather(
        router,
        call,
        Method.AUTH_SHOW,
        # by the newest table, as each read is placed. Shard 0 judges again, but a key may leave it before
        lambda revision: [(shard, body) for shard in placement.ids],
        False,
        router.quiet,
        lambda call, revision, term, tails: then(),
        lambda call, stats, error: failed(error),
    ).start()
