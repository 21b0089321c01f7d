"""Answers that a client would miss or not believe, taken out one at a time: checks that could pass idly must bite, each by its
own name. As ``order_mutants``."""

from __future__ import annotations

from typing import Any

import pytest
from order_mutants import HOT, Mutant, plan

import node.server
import proxy.watch.cohort
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


def progress_names_the_watermark(patch: Patch) -> None:
    """I16: a progress answer is not older than what this front had told anyone when it was asked for."""
    tell = proxy.watch.stream.WatchStream.tell_progress
    patch.setattr(proxy.watch.stream.WatchStream, "tell_progress", lambda self, owed: tell(self, 0))


def progress_overtakes_events(patch: Patch) -> None:
    """I16: it names a revision up to which every event has been sent."""
    patch.setattr(proxy.watch.stream.WatchStream, "_promised", lambda self, watches, least=0: self.hub.store_revision())


def progress_requests_are_dropped(patch: Patch) -> None:
    """I16: a request is answered, once every watch of the stream has come so far."""
    patch.setattr(proxy.watch.hub.WatchHub, "ask_progress", lambda self, stream: None)


def nobody_is_notified_of_progress(patch: Patch) -> None:
    """I16: a watch that wants it is told from time to time how far it is."""
    patch.setattr(proxy.watch.stream.WatchStream, "periodic", lambda self: None)


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


WATCHES = {**HOT, "watch": 3, "progress": 6}
MUTANTS = [
    Mutant(no_lease_ever_expires, ("I15 a lease ends",), plan(mix=LEASES, **CALM)),
    Mutant(leases_end_late, ("I15 a lease ends",), plan(mix=LEASES, faults=("heal",))),
    Mutant(time_to_live_is_always_the_same, ("I15 time to live",), plan(mix=LEASES, **CALM)),
    Mutant(watches_send_no_prev_kv, ("I16 what was there before",), plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(no_watch_is_ever_confirmed, ("I16 a watch is confirmed",), plan(mix={**HOT, "watch": 3}, **CALM)),
    Mutant(progress_names_the_watermark, ("I16 progress covers",), plan(mix=WATCHES, **CALM)),
    Mutant(progress_overtakes_events, ("I16 progress comes behind",), plan(mix=WATCHES, **CALM)),
    Mutant(progress_requests_are_dropped, ("I16 progress is told when",), plan(mix=WATCHES, **CALM)),
    Mutant(nobody_is_notified_of_progress, ("I16 progress is told from",), plan(mix=WATCHES, **CALM)),
    Mutant(filters_are_ignored, ("I16 every event once",), plan(mix=WATCHES, **CALM)),
    Mutant(fragments_are_not_marked, ("I16 every event once",), plan(mix=WATCHES, **CALM)),
    Mutant(compacted_watches_are_not_told_why, ("I16 a watch ends for a reason",), plan(mix={**WATCHES, "compact": 4}, **CALM)),
    Mutant(compactions_are_misnamed, ("I24 compacted only",), plan(mix={**WATCHES, "compact": 4}, **CALM)),
]
