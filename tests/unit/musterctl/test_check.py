"""The verdict of ``check perf``."""

from __future__ import annotations

import socket
import time

import pytest

from tools.musterctl.client import Client, Config
from tools.musterctl.commands.data.check import Load, Measured, drive, verdict

_LOAD = Load(puts_per_s=100, clients=10)


def test_a_fast_cluster_passes() -> None:
    lines, passed = verdict(_LOAD, Measured([0.01] * 990, {}, 10.0))
    assert passed
    assert lines == [
        "PASS: Throughput is 100 writes/s",
        "PASS: Slowest request took 0.010000s",
        "PASS: Stddev is 0.000000s",
        "PASS",
    ]


def test_each_shortcoming_fails_by_itself() -> None:
    assert verdict(_LOAD, Measured([0.01] * 900, {}, 10.0)) == (
        [
            "FAIL: Throughput too low: 91 writes/s",
            "PASS: Slowest request took 0.010000s",
            "PASS: Stddev is 0.000000s",
            "FAIL",
        ],
        False,
    )
    slow, passed = verdict(_LOAD, Measured([0.01] * 999 + [0.6], {}, 10.0))
    assert not passed
    assert "Slowest request took too long: 0.600000s" in slow
    uneven, passed = verdict(_LOAD, Measured([0.0, 0.4] * 500, {}, 10.0))
    assert not passed
    assert "Stddev too high: 0.200000s" in uneven
    failed, passed = verdict(_LOAD, Measured([0.01] * 1000, {"boom": 2}, 10.0))
    assert not passed
    assert failed[:2] == ["FAIL: too many errors", "FAIL: ERROR(boom) -> 2"]


def test_nothing_done_is_a_failure_not_an_error() -> None:
    lines, passed = verdict(_LOAD, Measured())
    assert not passed
    assert lines[0] == "FAIL: Throughput too low: 1 writes/s"


@pytest.mark.parametrize("endpoints", [1, 2])
def test_servers_that_went_away_end_it_with_errors_instead_of_holding_it_for_ever(endpoints: int) -> None:
    """Listening but never answering, as a machine that was frozen."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(endpoints)]
    config = Config((), True, "", "", "", "", "", 10_000, 6_000)
    client = Client(config, tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets))
    started = time.monotonic()
    measured = drive(client, Load(puts_per_s=100, clients=3), b"/check/", 1.0, 0.4)
    assert time.monotonic() - started < 60
    assert measured.latencies_s == []
    assert set(measured.errors) == {"context deadline exceeded"}
    client.close()
    for s in sockets:
        s.close()
