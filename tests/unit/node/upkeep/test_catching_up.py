"""A replica that gets a state catches up, however much is logged meanwhile."""

from __future__ import annotations

import pytest

from cluster.raft.types import PeerStatus
from node.upkeep.log import catching_up
from node.upkeep.log.catching_up import CatchingUp

MIB_S = 40.0  # logged, while nothing slows it: entries of 1 MiB, so an index is a number of MiB
ROOM = 96  # MiB of log that may be kept
CATCHUP = 4
HOUR_S = 3600.0


class Leader:
    """A leader under load and one follower that wants a state; the time is simulated."""

    def __init__(self, transfer_s: float, replay_mib_s: float) -> None:
        self.up = CatchingUp()
        self.transfer_s, self.replay_mib_s = transfer_s, replay_mib_s
        self.now_s, self.last, self.logged_at = 0.0, 0, 0.0
        self.kept_after = self.match = 0
        self.sends_until_s = 0.0
        self.sends_at: int | None = None
        self.transfers = 0
        self.paused_until_s = 0.0
        self.most_kept = 0

    def log(self) -> None:
        self.now_s = max(self.now_s + 1 / MIB_S, self.paused_until_s)
        self.last += 1
        if (slowed := self.up.slows) is not None:
            self.paused_until_s = self.now_s + self.up.pause_s(1, self.last - slowed, ROOM, self.now_s)

    def follower(self, took_s: float) -> None:
        if self.sends_at is not None:
            if self.now_s >= self.sends_until_s:
                self.up.sent(7, self.sends_at)
                self.match, self.sends_at = self.sends_at, None
        elif self.match < self.kept_after:
            self.transfers += 1
            self.sends_at, self.sends_until_s = self.last, self.now_s + self.transfer_s
            self.up.begins(7, self.last, self.now_s)
        else:
            self.match = min(self.last, self.match + int(self.replay_mib_s * took_s + 0.5))

    def truncate(self) -> None:
        status = {7: PeerStatus(self.match, 0, "", 0, False, int(self.now_s * 1000))}
        anyway, least = self.last - CATCHUP, self.last - ROOM
        needed = self.up.needed(least, anyway, status, int(self.now_s * 1000))
        self.kept_after = max(self.kept_after, min(anyway, anyway if needed is None else max(needed, least)))
        self.most_kept = max(self.most_kept, self.last - self.kept_after)

    def until_caught_up(self) -> bool:
        self.last, self.kept_after = 1000, 1000 - CATCHUP
        while self.now_s < HOUR_S:
            began_s = self.now_s
            self.log()
            self.follower(self.now_s - began_s)
            self.truncate()
            if self.sends_at is None and self.match >= self.last - CATCHUP:
                return True
        return False


@pytest.mark.parametrize(("transfer_s", "most"), [(1.0, 1), (3.0, 2), (10.0, 3), (60.0, 5)])
def test_a_state_that_takes_longer_than_the_log_lasts_arrives_at_last(transfer_s: float, most: int) -> None:
    leader = Leader(transfer_s, 60.0)
    assert leader.until_caught_up()
    assert leader.transfers <= most
    assert leader.most_kept <= ROOM


def test_it_would_never_arrive_if_nothing_slowed_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catching_up, "_SLOWEST_BY", 1)
    assert not Leader(3.0, 60.0).until_caught_up()


def test_a_state_that_arrives_in_time_slows_nothing() -> None:
    leader = Leader(1.0, 60.0)
    assert leader.until_caught_up()
    assert leader.paused_until_s == 0


def status(match: int) -> dict[int, PeerStatus]:
    return {7: PeerStatus(match, 0, "", 0, False, 0)}


def test_the_log_is_kept_until_who_got_a_state_has_caught_up() -> None:
    up = CatchingUp()
    up.begins(7, 50, 0.0)
    assert up.needed(10, 90, status(3), 0) == 50
    up.sent(7, 55)
    assert up.needed(10, 90, status(3), 0) == 55
    assert up.needed(10, 90, status(60), 0) == 60
    assert up.needed(10, 90, status(90), 0) is None


def test_nothing_is_kept_for_who_is_silent_nor_for_a_transfer_that_failed_nor_where_nobody_leads() -> None:
    for end in ("silent", "failed", "deposed"):
        up = CatchingUp()
        up.begins(7, 50, 0.0)
        if end == "failed":
            up.sent(7, None)
        assert (
            up.needed(10, 90, {} if end == "deposed" else status(3), 10_000 if end == "silent" else 0) is None
        )
        assert up.slows is None


def test_who_runs_out_of_log_slows_the_load_once_half_is_used_and_less_once_it_has_caught_up() -> None:
    up = CatchingUp()
    up.begins(7, 50, 0.0)
    assert up.slows is None
    assert up.needed(51, 90, status(3), 0) is None
    up.begins(7, 90, 0.0)
    assert up.slows == 90
    assert up.pause_s(5, 49, 100, 10.0) == 0
    assert up.pause_s(1, 50, 100, 10.0) == pytest.approx(0.8), (
        "a fourth of 5 bytes a second, which it was until then"
    )
    assert up.pause_s(1, 51, 100, 10.2) == pytest.approx(1.4), "it was on its way"
    assert up.pause_s(100, 99, 100, 20.0) == 5, "never longer"
    up.sent(7, 95)
    assert up.needed(51, 96, status(96), 0) is None
    up.begins(7, 100, 0.0)
    assert up.slows is None


@pytest.mark.parametrize("then", ["deposed", "removed", "by the log"])
def test_a_lost_transfer_slows_none_of_a_later_leadership_nor_of_who_has_caught_up(then: str) -> None:
    """The first transfer of months later slowed all writes at once."""
    up = CatchingUp()
    up.begins(7, 50, 0.0)
    assert up.needed(51, 90, status(3), 0) is None
    peers = {"deposed": {}, "removed": {8: status(3)[7]}, "by the log": status(91)}[then]
    assert up.needed(51, 90, peers, 0) is None
    up.begins(7, 500, 9.0)
    assert up.slows is None
    assert up.pause_s(1, 99, 100, 10.0) == 0
