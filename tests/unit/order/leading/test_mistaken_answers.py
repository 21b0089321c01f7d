"""A fault in the making of one answer ends neither the process nor its neighbours' answers."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.effects.records import PENDING_REVISION
from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.order.leading.bound import Bound
from cluster.order.leading.shard_batch import Reply, ShardBatch
from cluster.wire.messages import HEAD, Status


@pytest.mark.parametrize("error", [EtcdError(errors.FUTURE_REV), KeyError("k"), TypeError()])
def test_it_is_answered_as_a_fault_and_the_others_as_they_are(error: Exception) -> None:
    def late(before: int) -> bytes:
        raise error

    batch = ShardBatch(1, PENDING_REVISION, Bound(1))
    batch.mix()
    batch.replies += [
        Reply("first", 0, True, b"tail", None, None),
        Reply("second", 1, True, b"", late, None),
        Reply("third", 2, False, b"", lambda before: b"%d" % before, None),
    ]
    answers = batch.answers(10, 3)
    assert [type(met) for _, met in faults.take()] == [type(error)]
    assert answers == [
        ("first", Status.OK, HEAD.pack(11, 3) + b"tail"),
        ("second", Status.ERROR, EtcdError(errors.INTERNAL_FAULT).encode()),
        ("third", Status.OK, HEAD.pack(12, 3) + b"12"),
    ]


def test_a_broken_invariant_ends_the_process() -> None:
    def late(before: int) -> bytes:
        raise AssertionError("I1")

    with pytest.raises(AssertionError, match="I1"):
        Reply("it", 0, True, b"", late, None).bind(10, 3, None)
