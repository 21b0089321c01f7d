"""Which answers a shard's leader leaves for later: none whose rows may be gone by then."""

from __future__ import annotations

from typing import Any

from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.pb import rpc_pb2 as pb
from tests.unit.order.stores import EmptyStore


class Crowded(EmptyStore):
    """Every range has very many keys, it says."""

    def live_count(self, start: bytes, end: bytes) -> int:
        return 100_000


def is_late(shown: pb.RequestOp) -> bool:
    store: Any = Crowded()
    leader: ShardLeader[str] = ShardLeader(store, 1, 3, Start(5, 0), max_txn_ops=128)
    leader.applied_records([(1, 2, [])])
    leader.serve()
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"v"))
    outcome, _ = leader._txn(pb.TxnRequest(success=[put, shown]).SerializeToString())
    assert outcome.changed
    return outcome.late is not None


def test_rows_of_the_past_are_read_before_a_compaction_can_remove_them() -> None:
    """Its revision is known only once a cut has put it in order: a compaction may have come in between,
    unknown here."""
    for revision, late in ((0, True), (5, False)):
        shown = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"b", revision=revision))
        assert is_late(shown) is late
        assert is_late(pb.RequestOp(request_txn=pb.TxnRequest(success=[shown]))) is late
