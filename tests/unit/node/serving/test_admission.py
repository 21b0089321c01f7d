"""Which requests of users node 0's leader takes in as writes."""

from __future__ import annotations

from node.kinds import WRITES
from node.serving import admission


def test_every_write_that_is_judged_is_judged_where_it_is_evaluated() -> None:
    judged_writes = admission.JUDGED & WRITES
    assert len(judged_writes) > 8
    assert judged_writes <= admission._AT_LEADER
