"""Figures of hosts, lines of charts, hot prefixes, and what a user may write."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import muster_client as m
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.console.store.access.rights import UNLIMITED, Rights
from tools.console.store.charts import figures, hot, recorder, series
from tools.console.store.charts.recorder import Look, Recorder

FIRST = """# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_type="unary"} 5
grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_type="unary"} 0
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 1
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 1
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 1
etcd_server_leader_changes_seen_total{front="0"} 7
etcd_server_leader_changes_seen_total{front="1"} 6
process_resident_memory_bytes 1e+06
unknown_of_another_form{ 3
"""
SECOND = """grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_type="unary"} 25
grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Put",grpc_type="unary"} 10
grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_type="unary",le="0.05"} 6
grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_type="unary",le="0.1"} 8
grpc_server_handling_seconds_bucket{grpc_method="Put",grpc_type="unary",le="+Inf"} 10
grpc_server_handling_seconds_bucket{grpc_method="Watch",grpc_type="bidi_stream",le="+Inf"} 10
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 1
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 101
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 101
etcd_server_leader_changes_seen_total 2
etcd_debugging_mvcc_watcher_total 3
process_resident_memory_bytes 9e+06
muster_front_resident_memory_bytes 2e+06
muster_shard_resident_memory_bytes{shard="0"} 3e+06
muster_shard_resident_memory_bytes{shard="1"} 4e+06
"""


def test_two_looks_tell_of_the_time_between() -> None:
    told = figures.between(figures.read(FIRST), figures.read(SECOND), 10.0)
    assert told == {
        "requests/Put": 3.0, "errors/Unavailable": 1.0, "slow/Put": 0.2, "watches": 3.0, "memory": 9e6,
        "elections": 0.2,  # the process began again
        "fsync/p50": pytest.approx(0.0015), "fsync/p99": pytest.approx(0.00199),
        "handling/p50": pytest.approx(0.05 * 5 / 6), "handling/p99": 0.1}  # fmt: skip
    assert figures.read(FIRST).gauges == {"memory": 1e6}


def of_fronts(**totals: tuple[int, int]) -> str:
    """Elections seen and puts handled by each front."""
    return "".join(
        f'etcd_server_leader_changes_seen_total{{front="{front}"}} {elections}\n'
        f'grpc_server_handled_total{{front="{front}",grpc_code="OK",grpc_method="Put"}} {puts}\n'
        for front, (elections, puts) in totals.items())


@pytest.mark.parametrize(("before", "after", "told"), [
    ({"a": (7, 500), "b": (6, 300)}, {"a": (8, 520), "b": (7, 300)}, {"elections": 0.1, "requests/Put": 2.0}),
    # one began again
    ({"a": (7, 500), "b": (6, 300)}, {"a": (1, 10), "b": (6, 310)}, {"requests/Put": 2.0}),
    # one did not answer
    ({"a": (7, 500), "b": (6, 300)}, {"b": (6, 310)}, {"requests/Put": 1.0}),
    ({"b": (6, 300)}, {"a": (7, 500), "b": (6, 310)}, {"requests/Put": 1.0}),
    # the host began again
    ({"a": (7, 500)}, {"a": (1, 10)}, {"elections": 0.1, "requests/Put": 1.0}),
])  # fmt: skip
def test_a_front_that_begins_again_is_no_election_and_counts_nothing_twice(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], told: dict[str, float]
) -> None:
    first, second = (figures.read(of_fronts(**one)) for one in (before, after))
    found = figures.between(first, second, 10.0)
    assert found.pop("memory") == 0
    assert found == told


def test_the_age_of_a_revision_is_that_of_the_first_look_that_has_it() -> None:
    async def hosts() -> list[tuple[str, str]]:
        return []

    recorder = Recorder((), None, hosts)
    assert recorder.age_s(5, 100.0) == (0.0, True), "nothing is known yet"
    for at_s, told in ((10.0, {"a": 3.0, "b": 4.0}), (20.0, {"a": 7.0}), (30.0, {}), (40.0, {"b": 9.0})):
        recorder.looks.append(Look(at_s, {host: {"revision": value} for host, value in told.items()}))
    assert recorder.age_s(2, 50.0) == (40.0, True)
    assert recorder.age_s(4, 50.0) == (40.0, True)
    assert recorder.age_s(5, 50.0) == (30.0, False)
    assert recorder.age_s(8, 50.0) == (10.0, False)
    assert recorder.age_s(10, 50.0) == (0.0, False), "no look has it yet"


def test_each_front_of_a_host_tells_the_revision() -> None:
    lines = "".join(
        f'etcd_debugging_mvcc_current_revision{{front="{at}"}} {value}\n' for at, value in enumerate((7, 9)))
    assert figures.read(lines).gauges["revision"] == 9.0


def of_processes(fronts: dict[str, float], node_s: float) -> figures.Figures:
    """A host of two shards. ``fronts``: CPU time by labels."""
    return figures.read(f"""muster_node_cpu_us_total{{shard="0"}} {node_s * 1e6}
muster_node_cpu_us_total{{shard="1"}} 1e+06
""" + "".join(f"process_cpu_seconds_total{front} {used_s}\n" for front, used_s in fronts.items()))


@pytest.mark.parametrize(("fronts", "cpu"), [
    ({"": 20.01}, 0.5),  # in node 0's process
    ({"": 20.3}, 0.5),
    ({"": 9.0}, 1.0),
    ({'{front="0"}': 20.0, '{front="1"}': 10.0}, 1.5),
])  # fmt: skip
def test_each_process_of_a_host_counts_once(fronts: dict[str, float], cpu: float) -> None:
    later = {front: used_s + 5 for front, used_s in fronts.items()}
    told = figures.between(of_processes(fronts, 20.0), of_processes(later, 25.0), 10.0)
    assert told["cpu"] == pytest.approx(cpu)


@pytest.mark.parametrize(("first", "second"), [(20.01, 25.01), (20.01, 25.8)])
def test_one_look_of_two_that_takes_a_process_for_two_is_no_spike(first: float, second: float) -> None:
    """The front's look at its process, and the node's, come at different moments."""
    before, after = of_processes({"": first}, 20.0), of_processes({"": second}, 25.0)
    for one, other in ((before, after), (after, of_processes({"": 30.01}, 30.0))):
        assert 0 < figures.between(one, other, 10.0)["cpu"] <= 1.1


@pytest.mark.parametrize(
    "text",
    [
        "grpc_server_handled_total{ 3",
        "process_resident_memory_bytes x",
        'grpc_server_handling_seconds_bucket{grpc_method="Put"} 5',
        "etcd_disk_wal_fsync_duration_seconds_bucket 5",
    ],
)
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        figures.read(text)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.floats(0.01, 1))
def test_a_percentile_lies_within_its_buckets(counts: list[int], share: float) -> None:
    buckets, below = {}, 0
    for at, count in enumerate(counts, 1):
        below += count
        buckets[float(at)] = float(below)
    buckets[float("inf")] = float(below)
    found = figures.quantile(buckets, share)
    assert 0.0 <= found <= len(counts)
    if below:
        reached = next(at for at in sorted(buckets) if buckets[at] >= share * below)
        assert reached - 1 <= found <= reached


def test_lines_are_added_up_over_hosts_or_drawn_for_each() -> None:
    looks = [Look(1.0, {"a": {"requests/Put": 1.0, "memory": 2**20}, "b": {"requests/Put": 2.0}}),
             Look(2.0, {"a": {"requests/Range": 4.0, "memory": 2**21}})]  # fmt: skip
    charts = {one.name: one for one in series.CHARTS}
    assert series.lines(charts["requests"], looks) == {
        "Range": [(1000.0, 0.0), (2000.0, 4.0)], "Put": [(1000.0, 3.0), (2000.0, 0.0)]}  # fmt: skip
    assert series.lines(charts["requests"], looks, "b")["Put"] == [(1000.0, 2.0), (2000.0, 0.0)]
    assert series.lines(charts["memory"], looks) == {
        "a": [(1000.0, 1.0), (2000.0, 2.0)], "b": [(1000.0, 0.0), (2000.0, None)]}  # fmt: skip
    assert series.lines(charts["fsync"], looks) == {}
    many = [Look(1.0, {"a": {f"requests/M{at}": 1.0 + at for at in range(12)}})]
    drawn = series.lines(charts["requests"], many)
    assert len(drawn) == series.MOST_LINES + 1
    assert drawn[series.OTHERS] == [(1000.0, 1.0 + 2.0 + 3.0 + 4.0)]


def test_hot_prefixes_are_counted_within_bounds() -> None:
    assert [hot.prefix_of(key) for key in (b"/a/b/c", b"/a/b", b"a/b/c/d", b"plain", b"/x")] == [
        b"/a/b/", b"/a/", b"a/b/", b"plain", b"/x"]  # fmt: skip
    found = hot.Hot()
    for at in range(5 * hot.MOST_KEPT):
        found.add([b"/hot/key", b"/cold%d/key" % at])
    assert found.top(1) == [(b"/hot/", 5 * hot.MOST_KEPT)]
    assert len(found.top(10**6)) <= hot.MOST_KEPT


_KEYS = st.text("ab", min_size=1, max_size=3).map(str.encode)
_RANGES = st.one_of(
    _KEYS.map(lambda key: m.KeyRange(key, b"")),
    _KEYS.map(m.prefix),
    st.tuples(_KEYS, _KEYS).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: m.span(*ends)),
    _KEYS.map(m.since),
    st.just(m.EVERYTHING),
)


def _has(keys: m.KeyRange, key: bytes) -> bool:
    return key == keys.start if not keys.end else keys.start <= key and (keys.end == b"\0" or key < keys.end)


@given(st.lists(_RANGES, max_size=3), _RANGES, _KEYS)
def test_what_may_be_written_is_what_a_permission_holds(
    writes: list[m.KeyRange], wanted: m.KeyRange, key: bytes
) -> None:
    rights = Rights(False, tuple(writes))
    assert rights.may_write(key) == any(_has(one, key) for one in writes)
    if rights.may_write(wanted) and _has(wanted, key):
        assert rights.may_write(key)
    assert not rights.may_write(m.EVERYTHING) or m.EVERYTHING in writes or m.since(b"\0") in writes
    assert UNLIMITED.may_write(wanted)


def test_charts_go_by_renewed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Any]()

    def client(*_: object) -> Any:
        if len(made) == 2:
            made.append(None)
            raise OSError("half a file")
        away = AsyncMock(side_effect=httpx.ConnectError("away"))
        made.append(SimpleNamespace(aclose=AsyncMock(), get=away))
        return made[-1]

    async def run() -> None:
        monkeypatch.setattr(recorder.web, "client", client)
        found = AsyncMock(return_value=[("a", "https://127.0.0.1:1")])
        plain, one = (Recorder(["127.0.0.1:1"], tls, found) for tls in (None, m.Tls()))
        for _ in range(3 * recorder._MEMBERS_EVERY):
            await plain.look()
        assert made.pop().get.await_count == 18, "without files there is nothing to renew"
        assert not made
        for _ in range(3 * recorder._MEMBERS_EVERY):
            await one.look()
        first, second, broken = made
        assert (first.aclose.await_count, second.aclose.await_count, broken) == (1, 0, None)
        assert (first.get.await_count, second.get.await_count) == (6, 12)
        await one.close()
        assert second.aclose.await_count == 1

    asyncio.run(run())
