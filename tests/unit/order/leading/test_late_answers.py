"""Which answers a shard's leader leaves for later: none whose rows may be gone by then."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.evaluate.view import Outcome
from cluster.grain import GRAIN
from cluster.order.leading.pending import Elsewhere
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from tests.unit.order.leading.several import TERM, Part
from tests.unit.order.stores import EmptyStore


class Crowded(EmptyStore):
    """Every range has very many keys, it says."""

    def live_count(self, start: bytes, end: bytes) -> int:
        return 100_000


def shown_beside_a_put(shown: pb.RequestOp) -> Outcome:
    store: Any = Crowded()
    leader: ShardLeader[str] = ShardLeader(store, 1, 3, Start(5, 0), max_txn_ops=128)
    leader.applied_records([(1, 2, [])])
    leader.serve()
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"v"))
    outcome, _ = leader._txn(pb.TxnRequest(success=[put, shown]).SerializeToString())
    assert outcome.changed
    return outcome


def ways(**wanted: Any) -> list[pb.RequestOp]:
    shown = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", **wanted))
    return [shown, pb.RequestOp(request_txn=pb.TxnRequest(success=[shown]))]


def test_many_rows_are_shown_later() -> None:
    for shown in ways(range_end=b"b"):
        assert shown_beside_a_put(shown).late is not None


def test_a_key_of_the_past_is_read_before_a_compaction_can_remove_it() -> None:
    """Its revision is known only once a cut has put it in order: a compaction may have come in between,
    unknown here."""
    for shown in ways(revision=5):
        assert shown_beside_a_put(shown).late is None


def test_a_range_of_the_past_goes_the_way_over_all_shards() -> None:
    """Its rows may be very many, and would be read in one turn. The sequencer has them pinned."""
    for shown in ways(range_end=b"b", revision=5):
        with pytest.raises(Elsewhere):
            shown_beside_a_put(shown)


@pytest.mark.parametrize("past", [0, 2])
def test_many_rows_beside_a_key_of_the_past_are_read_in_no_turn(past: int) -> None:
    """Beside a key of an older revision a leader read a whole directory in one turn, however large."""
    part = Part()
    for at in range(3000):
        part.execute(Method.PUT, pb.PutRequest(key=b"k%04d" % at, value=b"v").SerializeToString())
    leader: ShardLeader[str] = ShardLeader(
        part, 1, TERM, Start(5, 0), max_txn_ops=128)  # type: ignore[arg-type]
    leader.applied_records([(1, 5, [])])
    leader.serve()
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"put", value=b"v")),
           pb.RequestOp(request_range=pb.RangeRequest(key=b"k0001", revision=past)),
           pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"l"))]
    leader.submit("client", Method.TXN, pb.TxnRequest(success=ops).SerializeToString())
    part.rows = 0
    leader.run()
    assert part.rows <= GRAIN.late_rows
    asked = [(token, status) for token, status, _ in leader.take_answers()]
    assert asked == ([("client", Status.ELSEWHERE)] if past else [])
    assert leader.dirty is not bool(past)
