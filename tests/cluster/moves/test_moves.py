"""Keys move between real processes under load: nothing is lost, no watch has a gap or a repeat, old revisions
stay, and a kill at any step only delays it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LIMIT_S, LocalCluster, local_cluster, until
from tests.cluster.serving.test_births import CALM, HOSTS, Load, grow, listed, musterctl, told
from tests.cluster.serving.test_shards import unary

pytestmark = pytest.mark.timeout(600)

_ENDS_S = 4 * LIMIT_S  # a move, on a machine that is busy


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Each test moves another of the load's directories."""
    with local_cluster(tmp_path_factory.mktemp("moves") / "c", HOSTS, "--shards=3", extra=CALM) as made:
        grow(made)
        yield made


def owner(cluster: LocalCluster, span: str) -> int:
    (shard,) = told(cluster, "of", f"{span}1")["shards"]
    return int(shard)


def begin(cluster: LocalCluster, target: int, span: str) -> int:
    """The number of a move that has begun."""
    def begun() -> list[Any] | None:
        done = musterctl(cluster, "shard", "move", "--prefix", span, "--to", str(target), "--no-wait", "-w",
                         "json")
        if done.returncode == 0 or "is under way" in done.stderr:
            return told(cluster, "moves")
        return None

    return max(int(move["move"]) for move in until(begun, look_s=0.3))


def is_owned(cluster: LocalCluster, shard: int, span: str) -> Callable[[], bool]:
    return lambda: owner(cluster, span) == shard


def leader_pid(cluster: LocalCluster, shard: int) -> int:
    """The process that leads a shard."""
    def found() -> int:
        status = cluster.status()
        host = next((s["leader_host"] for s in status["shards"] if s["shard"] == shard), None)
        if host is None:
            return 0
        nodes = status["hosts"][host]["nodes"]
        return next((node["pid"] or 0 for node in nodes if node["shard"] == shard), 0)

    return int(until(found))


class Pauses:
    """A client that puts one key of the span again and again: how long it ever waited."""

    def __init__(self, endpoint: str, key: bytes) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self._key = key
        self.longest_s = 0.0
        self.puts = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pauses:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)
        self._channel.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            unary(self._channel, "KV/Put", pb.PutRequest(key=self._key, value=b"v"), pb.PutResponse, LIMIT_S)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.puts += 1


def rows(cluster: LocalCluster, revision: int = 0) -> dict[bytes, int]:
    """The keys of all spans, and their revisions."""
    with grpc.insecure_channel(cluster.endpoints()[0]) as channel:
        answer = unary(channel, "KV/Range", pb.RangeRequest(
            key=b"/load/", range_end=b"/load0", revision=revision), pb.RangeResponse, LIMIT_S)
    return {kv.key: kv.mod_revision for kv in answer.kvs}


def test_a_span_moves_under_writes_with_a_watch_open(cluster: LocalCluster) -> None:
    span = "/load/6/"
    source = owner(cluster, span)
    target, third = [shard for shard in range(3) if shard != source]
    with Load(cluster.endpoints()) as load, Pauses(cluster.endpoints()[1], b"/load/6/pause") as pauses:
        until(lambda: len(load.written) > 100)
        before = max(load.written.values())
        then = rows(cluster, before)
        for shard in (target, third):
            begin(cluster, shard, span)
            until(is_owned(cluster, shard, span), _ENDS_S, look_s=0.2)
            written = len(load.written)
            until(lambda written=written: len(load.written) > written + 50)  # type: ignore[misc]
        load.check()
        assert rows(cluster, before) == then, "what was is where it was"
        written_by_now = dict(load.written)
        assert written_by_now.items() <= rows(cluster).items()
    assert not load.failures
    assert pauses.puts > 100
    print(f"longest put of the span that moved twice: {pauses.longest_s * 1000:.0f} ms of {pauses.puts}")


@pytest.mark.parametrize(
    ("who", "span"), [("source", "/load/0/"), ("target", "/load/1/"), ("sequencer", "/load/3/")])
def test_a_kill_while_keys_move_loses_nothing(cluster: LocalCluster, who: str, span: str) -> None:
    """The leader of the source, of the target, or of the order: these keys begin on shard 1."""
    source = owner(cluster, span)
    target = max(shard for shard in range(3) if shard != source)
    with Load(cluster.endpoints()) as load:
        until(lambda: len(load.written) > 200)
        begin(cluster, target, span)
        shard = {"source": source, "target": target, "sequencer": 0}[who]
        os.kill(leader_pid(cluster, shard), signal.SIGKILL)
        until(is_owned(cluster, target, span), _ENDS_S, look_s=0.3)
        until(lambda: all(facts["up"] for facts in listed(cluster)), _ENDS_S, look_s=0.3)
        written = len(load.written)
        until(lambda: len(load.written) > written + 100)
        load.check()
        written_by_now = dict(load.written)
        assert written_by_now.items() <= rows(cluster).items()
