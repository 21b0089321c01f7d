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


def test_a_clients_text_is_no_line_of_its_own_on_the_console() -> None:
    told = {"ts": "T", "level": "warn", "caller": "c", "msg": "request stats",
            "key": "x\nT\tinfo\tall is well", "range": "caf\xe9 \x1b[2J", "took_s": 0.5,
            "exception": "Traceback:\n  f()\nE: a\rb"}
    assert logline.text(None, "warning", told) == (
        'T\twarn\tc\trequest stats\tkey="x\\nT\\tinfo\\tall is well"\trange="caf\\u00e9 \\u001b[2J"'
        "\ttook_s=0.5\texception=Traceback:\n\t  f()\n\tE: a\n\tb"
    )
