"""The lessor's promises: no lease ends early, none lives for ever, a new sequencer honours its
predecessor's."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.features import lessor as lessor_module
from cluster.features.lessor import (
    CHECKPOINT_INTERVAL_MS,
    EXPIRY_RETRY_MS,
    MAX_TTL_S,
    NEVER,
    Lease,
    Lessor,
    choose_id,
    effective_ttl_s,
    min_ttl_s,
)

from .memory import refusal

ELECTION_MS = 1000


def sequencer(*leases: tuple[int, int]) -> Lessor:
    """A sequencer since 0 ms, with leases granted then."""
    lessor = Lessor(ELECTION_MS)
    lessor.promote(0)
    for lease, ttl_s in leases:
        lessor.granted(lease, ttl_s, 0)
    return lessor


@pytest.mark.parametrize(("election_ms", "heartbeat_ms", "expected"), [
    (1000, 100, 2), (1001, 100, 2), (2000, 100, 3), (100, 10, 1), (5000, 100, 8), (5000, 1000, 7),
    (1499, 300, 2), (50_000, 10_000, 70)])
def test_the_minimum_ttl_is_one_and_a_half_election_timeouts(
    election_ms: int, heartbeat_ms: int, expected: int
) -> None:
    """etcd's: whole heartbeats of it."""
    assert min_ttl_s(election_ms, heartbeat_ms) == expected


def test_a_restored_lease_has_the_minimum_of_its_hosts_heartbeats() -> None:
    lessor = Lessor(5000, heartbeat_ms=1000)
    lessor.load([(7, 1, 0)])
    assert list(lessor) == [(7, 7, 0)]


@pytest.mark.parametrize(
    ("asked", "granted"), [(-5, 2), (0, 2), (1, 2), (2, 2), (3, 3), (MAX_TTL_S, MAX_TTL_S)])
def test_short_ttls_are_raised_to_the_minimum(asked: int, granted: int) -> None:
    assert effective_ttl_s(asked, 2) == granted


def test_a_ttl_beyond_the_limit_is_refused() -> None:
    assert refusal(lambda: effective_ttl_s(MAX_TTL_S + 1, 2)).kind == errors.LEASE_TTL_TOO_LARGE


def test_a_chosen_id_is_positive_and_free() -> None:
    ids = iter([0, 1 << 63, 5, -1])
    assert choose_id(lambda lease: lease == 5, lambda: next(ids)) == 0x7FFF_FFFF_FFFF_FFFF


def test_a_lease_is_due_when_its_time_is_over_and_not_before() -> None:
    lessor = sequencer((7, 10))
    assert lessor.next_deadline() == 10_000
    assert lessor.due(9_999) == []
    assert lessor.due(10_000) == [7]


def test_a_renewal_restarts_the_whole_time() -> None:
    lessor = sequencer((7, 10))
    assert lessor.renew(7, 9_000) == 10
    assert lessor.due(18_999) == []
    assert lessor.time_to_live(7, 9_001) == (9, 10)
    assert lessor.due(19_000) == [7]


def test_of_a_lease_granted_this_moment_less_than_its_whole_time_is_left() -> None:
    lessor = sequencer((7, 10))
    assert lessor.time_to_live(7, 0) == (9, 10)


def test_an_unknown_lease_is_renewed_to_nothing() -> None:
    lessor = sequencer()
    assert lessor.renew(7, 0) == 0
    assert lessor.time_to_live(7, 0) is None


def test_an_expired_lease_blocks_keep_alives_until_it_is_revoked() -> None:
    lessor = sequencer((7, 10))
    assert lessor.renew(7, 10_000) is None  # over, though nobody has looked yet
    assert lessor.due(10_000) == [7]
    assert lessor.renew(7, 10_001) is None
    assert lessor.time_to_live(7, 12_500) == (0, 10)
    lessor.revoked(7)
    assert lessor.renew(7, 10_002) == 0


def test_leases_that_end_because_they_are_due_are_counted_once_where_they_were_due() -> None:
    lessor, other = sequencer((7, 10), (8, 10), (9, 60)), Lessor(ELECTION_MS)
    for lease, ttl_s in ((7, 10), (8, 10), (9, 60)):
        other.granted(lease, ttl_s, 0)
    assert lessor.due(10_000) == [7, 8]
    assert lessor.expiries == 0, "what is due has not ended yet"
    for each in (lessor, other):
        for lease in (7, 8, 9, 9):  # a client revokes 9
            each.revoked(lease)
    assert (lessor.expiries, other.expiries) == (2, 0)
    assert (lessor.revokes, other.revokes) == (3, 3)


def test_ttls_of_granted_leases_are_told_in_buckets_as_etcds() -> None:
    lessor = sequencer((7, 2), (8, 60))
    lessor.demote()
    lessor.load([(7, 2, 0), (8, 60, 0)])  # these were granted before
    buckets = lessor.ttls.buckets()
    assert [value for _, value in buckets[:8]] == [0, 1, 1, 1, 1, 1, 2, 2]
    assert [bound for bound, _ in buckets[-5:]] == [
        "1.048576e+06", "2.097152e+06", "4.194304e+06", "8.388608e+06", "+Inf"]
    assert lessor.ttls.sum == 62


def test_an_expiry_is_given_out_again_only_after_a_while() -> None:
    lessor = sequencer((7, 10))
    assert lessor.due(10_000) == [7]
    assert lessor.due(10_000 + EXPIRY_RETRY_MS - 1) == []
    assert lessor.due(10_000 + EXPIRY_RETRY_MS) == [7]


def test_at_most_so_many_are_due_at_once_in_order_of_their_deadlines() -> None:
    lessor = sequencer(*((lease, 100 - lease) for lease in range(1, 50)))
    assert lessor.due(1_000_000, limit=3) == [49, 48, 47]
    assert lessor.due(1_000_000, limit=2) == [46, 45]


def test_a_lease_granted_again_after_its_revoke_is_another_lease() -> None:
    lessor = sequencer((7, 10))
    lessor.revoked(7)
    lessor.granted(7, 10, 0)
    lessor.granted(8, 10, 0)
    assert lessor.due(10_000) == [7, 8]


@pytest.mark.parametrize("revoked", [False, True])
def test_one_call_looks_at_a_bounded_number_and_the_next_ones_come_to_all(
    monkeypatch: pytest.MonkeyPatch, revoked: bool
) -> None:
    """One TTL after a change of leaders every lease has the same time, and most have been renewed."""
    monkeypatch.setattr(lessor_module, "_LOOKS", 10)
    lessor = sequencer(*((lease, 1000) for lease in range(1, 1001)))
    lessor._leases = leases = Looked(lessor._leases)
    for lease in range(1, 996):
        lessor.renew(lease, 1 + lease % 7)
        if revoked:
            lessor.revoked(lease)
    for checkpoints in (True, False):
        found, calls = list[int](), 0
        now_ms = CHECKPOINT_INTERVAL_MS if checkpoints else 1_000_000
        times = lessor._checkpoints if checkpoints else lessor._deadlines
        while times.first()[0][0] <= now_ms:
            calls += 1
            lessor.renew(calls, now_ms - 1)  # one that was looked at
            leases.looks = 0
            if checkpoints:
                found += [lease for lease, _ in lessor.due_checkpoints(now_ms)]
            else:
                found += lessor.due(now_ms, limit=3)
            assert 0 < leases.looks <= 10
        assert found == [996, 997, 998, 999, 1000]
        assert 100 <= calls <= 101


def test_revoked_leases_of_years_take_no_room() -> None:
    lessor = sequencer((1, 3), (2, MAX_TTL_S))
    for lease in range(3, 10_000):
        lessor.granted(lease, MAX_TTL_S, 0)
        lessor.revoked(lease)
    assert len(lessor._deadlines) + len(lessor._checkpoints) < 3_000
    assert lessor.due(3_000) == [1]
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS) == [(2, MAX_TTL_S - CHECKPOINT_INTERVAL_MS // 1000)]


class Looked(dict[int, Lease]):
    looks = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.looks += 1
        return super().get(key, default)


def test_many_revoked_leases_are_forgotten_in_steps_and_the_others_stay_in_order() -> None:
    rng = random.Random(5)
    ttls = {lease: rng.randrange(1_000, 100_000) for lease in range(1, 8_000)}
    lessor = sequencer(*ttls.items())
    lessor._leases = leases = Looked(lessor._leases)
    most = 0
    for lease in rng.sample(sorted(ttls), 6_500):
        leases.looks = 0
        lessor.revoked(lease)
        most = max(most, leases.looks)
        del ttls[lease]
        if not lease % 50:
            lessor.granted(-lease, 500_000 + lease, 0)
            ttls[-lease] = 500_000 + lease
            lessor.renew(lease % 8_000 + 1, 1)
            now_ms = min(ttls.values()) * 1000
            assert lessor.next_deadline() <= now_ms
            assert all(ttls[found] * 1000 <= now_ms + 1 for found in lessor.due(now_ms))
    assert 64 <= most <= 128
    assert len(lessor._deadlines) < 8_000
    found = lessor.due(10**9, limit=10_000)
    assert sorted(found) == sorted(ttls)
    deadlines = [leases[lease].deadline_ms for lease in found]
    assert deadlines == sorted(deadlines)


def test_h7_a_new_sequencer_gives_the_full_time_and_an_election_timeout() -> None:
    old = sequencer((7, 10))
    new = Lessor(ELECTION_MS)
    new.granted(7, 10, 0)
    assert old.renew(7, 9_999) == 10  # acked by the old one just before the new one's first record
    new.promote(10_000)
    assert new.due(20_999) == []
    assert new.due(21_000) == [7]


def test_h7_an_uncleared_checkpoint_counts_for_a_new_sequencer() -> None:
    lessor = Lessor(ELECTION_MS)
    lessor.load([(7, 600, 300), (8, 600, 0)])
    lessor.promote(0)
    assert lessor.due(300_999) == []
    assert lessor.due(301_000) == [7]
    assert lessor.due(601_000) == [7, 8]


def test_h7_a_checkpointed_lease_is_renewed_only_once_the_checkpoint_is_cleared() -> None:
    lessor = Lessor(ELECTION_MS)
    lessor.load([(7, 600, 300)])
    lessor.promote(0)
    assert lessor.needs_checkpoint_clear(7)
    assert lessor.renew(7, 1) is None
    lessor.logged(7, 0)
    assert not lessor.needs_checkpoint_clear(7), "it is on its way"
    assert lessor.renew(7, 1) is None
    lessor.checkpointed(7, 0)
    assert not lessor.needs_checkpoint_clear(7)
    assert lessor.renew(7, 1) == 600
    assert lessor.due(600_000) == []
    assert lessor.due(600_001) == [7]


def test_h7_a_checkpoint_that_is_logged_and_not_applied_is_cleared_as_well() -> None:
    lessor = sequencer((7, 1000))
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS) == [(7, 700)]
    lessor.logged(7, 700)
    assert lessor.needs_checkpoint_clear(7)
    assert lessor.renew(7, CHECKPOINT_INTERVAL_MS) is None
    lessor.logged(7, 0)
    lessor.checkpointed(7, 700)
    assert not lessor.needs_checkpoint_clear(7)
    assert lessor.due_checkpoints(10**9 - 1) == [], "none overtakes what is on its way"
    assert lessor.renew(7, CHECKPOINT_INTERVAL_MS) is None
    lessor.checkpointed(7, 0)
    assert lessor.renew(7, CHECKPOINT_INTERVAL_MS) == 1000
    lessor.logged(7, 700)
    lessor.demote()  # what was logged last may be lost
    lessor.promote(0)
    assert lessor.renew(7, 0) == 1000


def test_times_of_a_restored_file_are_brought_into_their_bounds() -> None:
    lessor = Lessor(ELECTION_MS)
    lessor.load([(1, 600, 1 << 62), (2, 600, -5), (3, -1, 0), (4, (1 << 63) - 1, 0)])
    lessor.promote(0)
    assert lessor.due(601_000) == [3, 1, 2]
    assert lessor.time_to_live(3, 0) == (2, lessor.min_ttl_s)
    assert lessor.time_to_live(4, 0) == (MAX_TTL_S, MAX_TTL_S)


def test_a_sequencer_that_logs_no_checkpoints_counts_by_those_of_others() -> None:
    lessor = Lessor(ELECTION_MS, checkpoint_interval_ms=0)
    lessor.load([(7, 600, 0)])
    lessor.checkpointed(7, 300)
    lessor.promote(0)
    assert lessor.due_checkpoints(299_000) == []
    lessor.checkpointed(7, 0)
    assert lessor.renew(7, 299_000) == 600
    assert lessor.due_checkpoints(800_000) == []
    assert lessor.due(899_000) == [7]


def test_long_leases_are_checkpointed_with_the_time_left_rounded_up() -> None:
    lessor = sequencer((7, 1000), (8, 299), (9, 1000))
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS - 1) == []
    assert lessor.renew(9, 1) == 1000
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS) == [(7, 700)]
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS + 1) == [(9, 700)]
    assert lessor.due_checkpoints(2 * CHECKPOINT_INTERVAL_MS + 500) == [(7, 400), (9, 400)]
    assert lessor.due_checkpoints(10 * CHECKPOINT_INTERVAL_MS) == []  # they are over


def test_no_new_sequencer_gives_a_lease_more_than_an_interval_anew() -> None:
    lessor = sequencer((7, 500))
    assert lessor.due_checkpoints(CHECKPOINT_INTERVAL_MS) == [(7, 200)]
    assert lessor.due_checkpoints(499_999) == []  # soon over: not worth a record
    lessor.checkpointed(7, 200)
    lessor.promote(499_999)
    assert lessor.due(499_999 + 200_000 + ELECTION_MS) == [7]


def test_deadlines_die_with_the_term() -> None:
    lessor = sequencer((7, 10))
    assert lessor.due(10_000) == [7]
    lessor.demote()
    assert lessor.next_deadline() == NEVER
    with pytest.raises(AssertionError, match="I15"):
        lessor.due(99_999)
    with pytest.raises(AssertionError, match="I15"):
        lessor.renew(7, 99_999)
    lessor.promote(100_000)
    assert lessor.renew(7, 100_001) == 10  # its expiry was never committed: it lives again


def test_leases_are_listed_by_the_time_left_on_the_sequencer_and_by_id_elsewhere() -> None:
    lessor = sequencer((1, 30), (2, 10), (3, 20))
    assert sorted(lessor.unordered(), key=lessor.rank) == [2, 3, 1]
    lessor.demote()
    assert sorted(lessor.unordered(), key=lessor.rank) == [1, 2, 3]
    assert list(lessor) == [(1, 30, 0), (2, 10, 0), (3, 20, 0)]


@given(st.integers(0, 1 << 32))
@settings(max_examples=60, deadline=None)
def test_against_a_list_of_deadlines(seed: int) -> None:
    """Random grants, renewals, revokes and scans: nothing due early, nothing forgotten."""
    rng = random.Random(seed)
    lessor, deadlines, ttls, given_out = sequencer(), {}, {}, {}
    now = 0
    for _ in range(300):
        now += rng.randrange(1500)
        lease = rng.randrange(1, 12)
        match rng.randrange(4):
            case 0 if lease not in deadlines:
                ttl = rng.randrange(2, 20)
                lessor.granted(lease, ttl, now)
                deadlines[lease], ttls[lease] = now + ttl * 1000, ttl
            case 1:
                lessor.revoked(lease)
                deadlines.pop(lease, None)
                given_out.pop(lease, None)
            case 2:
                expected: int | None = 0
                if lease in deadlines:
                    live = lease not in given_out and deadlines[lease] > now
                    expected = ttls[lease] if live else None
                    if live:
                        deadlines[lease] = now + ttls[lease] * 1000
                assert lessor.renew(lease, now) == expected
            case 3:
                due = {i for i, t in deadlines.items()
                       if t <= now and given_out.get(i, -1 << 40) + EXPIRY_RETRY_MS <= now}
                again = (t + EXPIRY_RETRY_MS for t in given_out.values())
                assert min([*deadlines.values(), *again, NEVER]) <= now or not due
                assert (lessor.next_deadline() <= now) >= bool(due)
                found = lessor.due(now)
                assert set(found) == due
                assert len(found) == len(due)
                given_out.update(dict.fromkeys(found, now))
        for i, t in deadlines.items():
            assert lessor.time_to_live(i, now) == (max(t - now - 1, 0) // 1000, ttls[i])
    assert len(lessor) == len(deadlines)
