"""Whether a host could go on alone."""

from __future__ import annotations

from structlog.testing import capture_logs

from node.replica.shards.alone import LATE_S, Alone


def test_a_node_that_is_a_moment_behind_is_no_matter() -> None:
    alone = Alone(3)
    with capture_logs() as lines:
        for second in range(60):
            alone.look(100 * second, float(second))
            alone.said(1, 100 * second)
            alone.said(2, max(0, 100 * (second - 5)))
    assert (alone.lacking, alone.records, lines) == ({}, 0, [])


def test_what_a_node_lacks_for_long_is_told_once_and_so_is_its_end() -> None:
    alone = Alone(3)
    with capture_logs() as lines:
        for second in range(40):
            alone.look(100 + second, float(second))
            alone.said(1, 100 + second)
            alone.said(2, 100 + min(second, 7))
            assert bool(alone.lacking) == (second >= 8 + LATE_S)
        assert (alone.lacking, alone.records) == ({2: 22}, 22)
        alone.said(2, 139)
        alone.look(140, 40.0)
        assert not alone.lacking
    first, last = lines
    assert (first["log_level"], first["shards"], first["records"]) == ("warning", [2], 1)
    assert last["event"] == "this host has all order records again"


def test_a_node_that_never_says_where_it_is_lacks_everything() -> None:
    alone = Alone(2)
    for second in range(12):
        assert not alone.lacking or second > LATE_S
        alone.look(50, float(second))
    assert alone.lacking == {1: 50}


def test_of_one_shard_nothing_is_lacking() -> None:
    alone = Alone(1)
    for second in range(30):
        alone.look(second, float(second))
    assert not alone.lacking
