"""Rules taken out of a front, one at a time: a run must notice, by the rule that is named. With all rules the
same seeds find nothing (``test_random_front.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster import errors
from cluster.faults import faults
from cluster.pacing.turns import Turns
from cluster.wire.messages import Method
from proxy.routing.overdue import moved_on
from proxy.routing.sending import Sending
from proxy.routing.waiting import WRITE, PartWaiting
from proxy.services.leases.keepalive import KeepAlive
from proxy.services.range_stream import Passing
from proxy.watch.hub import WatchHub
from proxy.watch.parts import Part
from tests.unit.proxy.random import rules
from tests.unit.proxy.random.rules import broken
from tests.unit.proxy.random.run import Run

Patch = pytest.MonkeyPatch
_SEEDS = range(5, 20)  # the first one finds what is rarest: a stream that counts twice


def counts_a_stream_that_nobody_reads(patch: Patch) -> None:
    """A RangeStream whose node was lost counts as its client goes, and as its read is found."""
    def cancel(self: Any) -> None:
        if self._waiting is not None:
            self.context.router.cancel(self._waiting)
            self.context.given_up(self.call, self.stats)
            self._waiting = None

    patch.setattr(Passing, "cancel", cancel)


def keeps_shares(patch: Patch) -> None:
    """A write that has ended makes no room for the next one."""
    patch.setattr(Turns, "leave", lambda self, owner, size: None)


def sends_lost_writes_again(patch: Patch) -> None:
    """I23: a write whose link was lost has an unknown fate."""
    def again(router: Any, recent: Any, link: Any, placed_anew: Any) -> None:
        for rid, waiting in tuple(link.pending.items()):
            if waiting.route == WRITE:
                del link.pending[rid]
                waiting.rid = 0
                router.to_leader(waiting)
        moved_on(router, recent, link, placed_anew)

    patch.setattr("proxy.routing.router.moved_on", again)


def says_that_lost_writes_did_nothing(patch: Patch) -> None:
    """Their clients would write again."""
    def refuse(router: Any, recent: Any, link: Any, placed_anew: Any) -> None:
        for rid, waiting in tuple(link.pending.items()):
            if waiting.route == WRITE:
                del link.pending[rid]
                router.fail(waiting, errors.STOPPED)
        moved_on(router, recent, link, placed_anew)

    patch.setattr("proxy.routing.router.moved_on", refuse)


def drops_what_a_lost_link_owes(patch: Patch) -> None:
    """Reads are asked elsewhere, writes have an unknown fate."""
    patch.setattr("proxy.routing.router.moved_on", lambda router, recent, link, anew: link.pending.clear())


def does_not_look_for_clients_of_parts(patch: Patch) -> None:
    """What other shards have sent would stay until the last one answers."""
    patch.setattr(PartWaiting, "left", False)


def takes_answers_of_cancelled_requests(patch: Patch) -> None:
    """What was given up is no longer waited for."""
    def cancel(self: Any, waiting: Any) -> bool:
        link = self._link_of(waiting)
        if link is not None:
            self.post(link, waiting.rid, Method.CANCEL, b"")
        return link is not None

    patch.setattr(Sending, "cancel", cancel)


def tells_no_node_of_what_is_cancelled(patch: Patch) -> None:
    """A node would hold a state for a backup that nobody takes."""
    def cancel(self: Any, waiting: Any) -> bool:
        link = self._link_of(waiting)
        if link is not None:
            del link.pending[waiting.rid]
        return link is not None

    patch.setattr(Sending, "cancel", cancel)


def parts_stay_after_their_clients(patch: Patch) -> None:
    """A node would send events that nobody gets."""
    leave = Part.leave
    patch.setattr(Part, "leave", lambda self, router: leave(self, None))


def renews_leases_for_nobody(patch: Patch) -> None:
    """A stream of keep-alives is forgotten with its client."""
    patch.setattr(KeepAlive, "_forget", lambda self, call: None)


def ticks_for_nobody(patch: Patch) -> None:
    """A stream of watches is told of no progress after its end."""
    want = WatchHub.want_progress

    def keep(self: Any, stream: Any) -> None:
        want(self, stream)
        self._ticking = _Kept(self._ticking)

    patch.setattr(WatchHub, "want_progress", keep)


class _Kept(dict[Any, None]):
    def pop(self, *given: Any) -> None: ...


@pytest.mark.parametrize(("mutant", "rule"), [
    (counts_a_stream_that_nobody_reads, rules.each_call_counts_once),
    (keeps_shares, rules.each_share_is_given_back),
    (sends_lost_writes_again, rules.no_write_is_taken_twice),
    (says_that_lost_writes_did_nothing, rules.each_answer_tells_what_became_of_a_write),
    (drops_what_a_lost_link_owes, rules.each_call_ends),
    (does_not_look_for_clients_of_parts, rules.nothing_is_kept_for_who_has_gone),
    (takes_answers_of_cancelled_requests, rules.each_call_counts_once),
    (tells_no_node_of_what_is_cancelled, rules.nothing_is_left_at_a_node),
    (parts_stay_after_their_clients, rules.no_part_stays_after_its_client),
    (renews_leases_for_nobody, rules.no_keepalive_stays),
    (ticks_for_nobody, rules.no_watch_stays),
])
def test_a_run_notices(
    mutant: Callable[[Patch], None], rule: Callable[[Any], Any], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    assert any(_notices(seed, rule, monkeypatch) for seed in _SEEDS)


def _notices(seed: int, rule: Callable[[Any], Any], monkeypatch: Patch) -> bool:
    run = Run(seed, monkeypatch)
    try:
        run.go()
        found = broken(run)
    finally:
        faults.take()
    return any(one.startswith(rule.__name__) for one in found)
