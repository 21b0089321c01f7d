"""Log lines are etcd's in shape, to the letter: operators' filters are made for them."""

from __future__ import annotations

from pathlib import Path

from cluster import logline


def test_a_line_in_json_has_etcds_form() -> None:
    shaped = logline.shape("muster/supervisor", shard=1)
    line = shaped(None, "warning", {"ts": "2026-11-22T18:00:00.000Z", "event": "request stats", "a": 0.5})
    assert logline.in_json(None, "warning", line) == (
        '{"level":"warn","ts":"2026-11-22T18:00:00.000Z","caller":"muster/supervisor","msg":"request stats",'
        '"shard":1,"a":0.5}'
    )


def test_what_is_no_json_is_told_all_the_same() -> None:
    assert logline.in_json(None, "info", {"path": Path("/a")}) == """{"path":"PosixPath('/a')"}"""
