"""A transaction of very many operations over several shards, evaluated ahead of its turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.effects.records import ITEM
from cluster.evaluate.steps import STEP_OPS, finish
from cluster.evaluate.txns import draft
from cluster.evaluate.view import Outcome
from cluster.order.log import Attempt, Cut, decode_multi
from cluster.order.prepare import Grant
from cluster.order.sequencing.coordinator import Look
from cluster.order.sequencing.drafts import Survey, WideDraft
from cluster.order.sequencing.wide import Wide
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from tests.unit.many_ops import very_many
from tests.unit.order.sequencing.test_coordinator import TERM, Sequencer, key_of


@pytest.fixture
def sequencer(monkeypatch: pytest.MonkeyPatch) -> Sequencer:
    """Two operations are many to it."""
    monkeypatch.setattr(draft, "LARGE_OPS", 2)
    return Sequencer()


def begun(sequencer: Sequencer, token: str) -> None:
    """It is asked, surveyed, and its attempt begins."""
    sequencer.submit(token)
    for wide, ahead in sequencer.coordinator.take_unlooked():
        assert isinstance(ahead, Survey)
        finish(ahead.steps())
        sequencer.coordinator.looked_at(wide, ahead)
    sequencer.run(0)


def granted(sequencer: Sequencer) -> Attempt:
    """The attempt that was begun last, once its shards have granted it."""
    for shard in (1, 2):
        sequencer.grant(shard, sequencer.attempt)
    sequencer.run(0)
    return sequencer.attempt


def looks(sequencer: Sequencer) -> list[tuple[Wide[str], Look]]:
    """What is evaluated ahead, done as far as it takes several turns."""
    found = sequencer.coordinator.take_unlooked()
    for _, ahead in found:
        assert isinstance(ahead, WideDraft)
        assert list(ahead.steps())
    return found


def test_what_is_evaluated_ahead_is_logged_as_what_is_evaluated_in_its_turn(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(sequencer, "ahead")
    first = granted(sequencer)
    assert not sequencer.logged
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    sequencer.run(1)
    monkeypatch.setattr(draft, "LARGE_OPS", 1000)
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear()
    begun(sequencer, "in its turn")
    assert granted(sequencer) == first  # of the other coordinator
    assert sequencer.logged == ["ahead", "in its turn"]
    assert sequencer.items[0] == sequencer.items[1]


def test_others_that_touch_none_of_its_keys_are_done_meanwhile(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(sequencer, "ahead")
    granted(sequencer)
    monkeypatch.setattr(draft, "LARGE_OPS", 1000)
    sequencer.body = pb.TxnRequest(success=[
        pb.RequestOp(request_put=pb.PutRequest(key=key_of(shard, sequencer.placement, 1)))
        for shard in range(3)]).SerializeToString()
    sequencer.submit("meanwhile")
    sequencer.run(1)
    granted(sequencer)
    assert sequencer.logged == ["meanwhile"]


def test_what_was_evaluated_for_an_attempt_is_not_used_for_the_next_one(sequencer: Sequencer) -> None:
    """Between the two its keys are not locked, and may change."""
    begun(sequencer, "ahead")
    first = granted(sequencer)
    (late,) = looks(sequencer)
    sequencer.coordinator._restart(late[0])
    sequencer.run(0)
    second = granted(sequencer)
    assert second > first
    sequencer.coordinator.looked_at(*late)
    sequencer.run(1)
    assert not sequencer.logged
    (look,) = looks(sequencer)
    assert look[1] is not late[1]
    sequencer.coordinator.looked_at(*look)
    sequencer.run(2)
    assert sequencer.logged == ["ahead"]


def test_what_was_evaluated_on_one_leaders_grant_is_not_logged_under_another_leaders(
    sequencer: Sequencer,
) -> None:
    """A prepare that was sent again is granted twice, by a leader that is none any more and by the next one:
    before that one locked its keys they may have changed."""
    begun(sequencer, "ahead")
    first = granted(sequencer)
    (look,) = looks(sequencer)
    sequencer.coordinator.granted(first, 1, Grant(TERM + 1, [[]], []))
    sequencer.coordinator.fold.cuts[1] = Cut(1, TERM + 1, 0)
    sequencer.coordinator.looked_at(*look)
    sequencer.run(1)
    assert not sequencer.logged
    second = sequencer.attempt
    assert second > first
    assert (1, first) in sequencer.released
    for shard, term in ((1, TERM + 1), (2, TERM)):
        sequencer.coordinator.granted(second, shard, Grant(term, [[]], []))
    sequencer.run(2)
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    sequencer.run(3)
    assert sequencer.logged == ["ahead"]


def test_turns_in_which_nothing_is_applied_have_it_wait_for_one_delete(sequencer: Sequencer) -> None:
    """Each turn counted as a round: after a few it was evaluated in one turn, the same delete pending."""
    begun(sequencer, "ahead")
    granted(sequencer)
    ((wide, ahead),) = looks(sequencer)
    sequencer.coordinator.looked_at(wide, ahead)
    key = key_of(0, sequencer.placement)
    view = sequencer.coordinator._view
    view.take(Outcome(b"", True, b"", [], view.revision + 1, [(key, key + b"\0")]))
    for now_ms in range(2 * draft.ROUNDS):
        sequencer.run(now_ms)
    assert not sequencer.logged
    assert ahead.fit
    view.forget(view.batch, [], [])
    sequencer.run(2 * draft.ROUNDS)
    assert sequencer.logged == ["ahead"]


def test_a_look_of_an_attempt_that_has_ended_is_not_wanted_in_the_next_one(sequencer: Sequencer) -> None:
    """It may wait for others' looks for so long. Given up then, it must not end its transaction."""
    begun(sequencer, "ahead")
    granted(sequencer)
    ((wide, late),) = sequencer.coordinator.take_unlooked()
    assert sequencer.coordinator.looks(wide, late)
    sequencer.coordinator._restart(wide)
    sequencer.run(0)
    granted(sequencer)
    ((_, look),) = sequencer.coordinator.take_unlooked()
    assert wide.looking
    assert sequencer.coordinator.looks(wide, look)
    assert not sequencer.coordinator.looks(wide, late)


def test_what_is_given_up_in_one_attempt_does_not_end_the_next_one(sequencer: Sequencer) -> None:
    begun(sequencer, "ahead")
    granted(sequencer)
    ((wide, _),) = looks(sequencer)
    sequencer.coordinator._restart(wide)
    assert not wide.looking  # so it is given up
    sequencer.coordinator.looked_at(wide, None)
    sequencer.run(0)
    granted(sequencer)
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    sequencer.run(1)
    assert sequencer.logged == ["ahead"]


def test_what_nobody_waits_for_lets_go_of_its_keys(sequencer: Sequencer) -> None:
    begun(sequencer, "ahead")
    attempt = granted(sequencer)
    ((wide, _),) = looks(sequencer)
    sequencer.coordinator.looked_at(wide, None)
    sequencer.run(1)
    assert sequencer.released == [(1, attempt), (2, attempt)]
    assert not sequencer.coordinator.busy


def with_range(sequencer: Sequencer, shown: pb.RangeRequest) -> bytes:
    """What sequencers here are asked, and this in a transaction within it."""
    request = pb.TxnRequest.FromString(sequencer.body)
    request.success.append(pb.RequestOp(request_txn=pb.TxnRequest(
        success=[pb.RequestOp(request_range=shown)])))
    return request.SerializeToString()


def grant_all(sequencer: Sequencer) -> None:
    """The shards have none of its keys."""
    (wide,) = sequencer.coordinator._running.values()
    for shard, touches in wide.touches.items():
        sequencer.coordinator.granted(sequencer.attempt, shard, Grant(TERM, [[] for _ in touches], []))
    sequencer.run(0)


def deleting(sequencer: Sequencer) -> bytes:
    """What sequencers here are asked, and a delete of a range in a transaction within it."""
    request = pb.TxnRequest.FromString(sequencer.body)
    gone = pb.DeleteRangeRequest(key=b"a", range_end=b"b")
    request.success.append(pb.RequestOp(request_txn=pb.TxnRequest(
        success=[pb.RequestOp(request_delete_range=gone)])))
    return request.SerializeToString()


def shows(sequencer: Sequencer) -> bytes:
    """As :func:`deleting`, of a range that is shown."""
    return with_range(sequencer, pb.RangeRequest(key=b"a", range_end=b"b"))


@pytest.mark.parametrize("body", [shows, deleting])
def test_what_is_of_ranges_is_evaluated_ahead(
    sequencer: Sequencer, body: Callable[[Sequencer], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer.body = body(sequencer)
    begun(sequencer, "ahead")
    grant_all(sequencer)
    assert not sequencer.logged
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    sequencer.run(1)
    monkeypatch.setattr(draft, "LARGE_OPS", 1000)
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear()
    begun(sequencer, "in its turn")
    grant_all(sequencer)
    assert sequencer.logged == ["ahead", "in its turn"]
    assert sequencer.items[0] == sequencer.items[1]


def test_what_needs_rows_that_were_only_counted_asks_for_them_in_its_turn(sequencer: Sequencer) -> None:
    """It deletes a range behind one that lies in it."""
    request = pb.TxnRequest.FromString(deleting(sequencer))
    gone = pb.DeleteRangeRequest(key=b"a/b", range_end=b"a/c")
    request.success.insert(0, pb.RequestOp(request_delete_range=gone))
    sequencer.body = request.SerializeToString()
    begun(sequencer, "ahead")
    (wide,) = sequencer.coordinator._running.values()
    for shard, touches in wide.touches.items():
        counts = {at: 1000 for at, touch in enumerate(touches) if touch.count}
        grant = Grant(TERM, [[] for _ in touches], [], counts)
        sequencer.coordinator.granted(sequencer.attempt, shard, grant)
    sequencer.run(0)
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    assert not wide.rows
    sequencer.run(1)
    assert wide.rows
    assert not sequencer.logged


def test_what_shows_the_past_is_evaluated_in_its_turn(sequencer: Sequencer) -> None:
    key = key_of(0, sequencer.placement, 1)
    sequencer.body = with_range(sequencer, pb.RangeRequest(key=key, revision=7))
    begun(sequencer, "shows")
    granted(sequencer)
    assert sequencer.logged == ["shows"]


def test_what_is_surveyed_holds_up_nobody(sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch) -> None:
    sequencer.submit("surveyed")
    monkeypatch.setattr(draft, "LARGE_OPS", 1000)
    sequencer.submit("meanwhile")
    sequencer.run(0)
    granted(sequencer)
    assert sequencer.logged == ["meanwhile"]


def test_what_nobody_waits_for_any_more_is_not_surveyed(sequencer: Sequencer) -> None:
    sequencer.submit("surveyed")
    ((wide, survey),) = sequencer.coordinator.take_unlooked()
    assert sequencer.coordinator.looks(wide, survey)
    sequencer.coordinator.looked_at(wide, None)
    sequencer.run(0)
    assert not sequencer.coordinator.busy


def test_a_survey_asks_the_shards_for_what_it_would_be_asked_in_its_turn(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(sequencer, "ahead")
    (ahead,) = sequencer.coordinator._running.values()
    monkeypatch.setattr(draft, "LARGE_OPS", 1000)
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear()
    begun(sequencer, "in its turn")
    (other,) = sequencer.coordinator._running.values()
    assert (ahead.touches, ahead.prepares) == (other.touches, other.prepares)
    assert ahead.footprint == other.footprint


def test_what_neighbours_do_in_one_shard_is_one_part_of_the_log(sequencer: Sequencer) -> None:
    """Each was added to the ones before it, so as many as 18,000 took 0.16 s, the square of their number."""
    puts = [key_of(shard, sequencer.placement, number)
            for number, shard in enumerate((1, 1, 2, 0, 0))]
    sequencer.body = pb.TxnRequest(success=[
        pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in puts]).SerializeToString()
    begun(sequencer, "ahead")
    touched = {1: 2, 2: 1}
    for shard, rows in touched.items():
        sequencer.coordinator.granted(sequencer.attempt, shard, Grant(TERM, [[] for _ in range(rows)], []))
    sequencer.run(0)
    for look in looks(sequencer):
        sequencer.coordinator.looked_at(*look)
    sequencer.run(1)
    (item,) = sequencer.items
    parts = decode_multi(item, ITEM.size, len(item)).parts
    assert [(part.shard, part.sub) for part in parts] == [(1, 0), (2, 2), (0, 3)]
    lasts = puts[1], puts[2], puts[4]
    assert all(key in part.items for part, key in zip(parts, lasts, strict=True))


def test_no_step_of_a_survey_is_long() -> None:
    """A look for ranges that show the past took 17 ms where there were none."""
    ops = 24 * 3 * 32
    request = very_many(ops)
    steps = sum(1 for _ in Survey(request, Placement(3)).steps())
    assert steps >= 3 * ops // 32 + ops // STEP_OPS  # three looks at 32 in a transaction; the keys
