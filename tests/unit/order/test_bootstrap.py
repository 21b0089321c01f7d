"""The layout can be read off the record that says it, whatever else is in it."""

from __future__ import annotations

from cluster.effects import records
from cluster.order.log import Cut, encode_cut


def test_a_record_that_says_the_layout_may_hold_a_cut_too() -> None:
    both = records.bootstrap(1, 3, 2) + encode_cut({1: Cut(4, 1, 0)})
    assert records.bootstrap_in(both) == (1, 3, 2)
    assert records.bootstrap_in(encode_cut({1: Cut(4, 1, 0)})) is None
    assert records.bootstrap_in(b"") is None
