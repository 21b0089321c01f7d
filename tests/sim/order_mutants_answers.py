"""Answers that a client would miss or not believe, taken out one at a time: checks that could pass idly must bite, each by its
own name. As ``order_mutants``."""

from __future__ import annotations

from typing import Any

import pytest
from order_mutants import HOT, Mutant, plan

import node.server
import proxy.watch.hub
import proxy.watch.stream

Patch = pytest.MonkeyPatch
CALM = {"fault_every_s": 9.0}
LEASES = {"grant": 6, "lease_put": 10, "put": 4, "keep": 4, "ttl": 10}


# -- leases


def no_lease_ever_expires(patch: Patch) -> None:
    """I15: a lease whose time is over ends."""
    patch.setattr(node.server.Lessor, "due", lambda self, now_ms, limit=0: [])


def leases_end_late(patch: Patch) -> None:
    """I15: a lease ends soon after its time; here six seconds later."""
    due = node.server.Lessor.due
    patch.setattr(node.server.Lessor, "due", lambda self, now_ms: due(self, now_ms - 6_000))


def time_to_live_is_always_the_same(patch: Patch) -> None:
    """I15: the answer tells what is left."""
    patch.setattr(node.server.Lessor, "time_to_live",
                  lambda self, lease, now_ms: (1_000_000, self._leases[lease].ttl_s) if lease in self._leases else None)


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


MUTANTS = [
    Mutant(no_lease_ever_expires, ("I15 a lease ends",), plan(mix=LEASES, **CALM)),
    Mutant(leases_end_late, ("I15 a lease ends",), plan(mix=LEASES, faults=("heal",))),
    Mutant(time_to_live_is_always_the_same, ("I15 time to live",), plan(mix=LEASES, **CALM)),
    Mutant(watches_send_no_prev_kv, ("I16 what was there before",), plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(no_watch_is_ever_confirmed, ("I16 a watch is confirmed",), plan(mix={**HOT, "watch": 3}, **CALM)),
]
