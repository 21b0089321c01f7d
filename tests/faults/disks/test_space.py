"""Disks that fill up: the order log stays within its bound, and the store stops taking data in before a disk
is full."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, stopped, until
from tests.faults.shards import Client, clients, facts, keys_of, order_index
from tests.small_disk import mounted
from tests.soaking import amount

SHARDS = 2
MIB = 1 << 20
BOUND = 256 * MIB
VALUE = os.urandom(MIB)
NO_SPACE = "etcdserver: mvcc: database space exceeded"
SECONDS = amount(0.0, soak=200.0)  # at least
ENOUGH = 9 * BOUND // 8  # written, which a log without an end would show
TWICE = 2 * BOUND  # which one would show that is cut off once, or late
SLOW_S = 180.0  # more, on a busy machine
STEADY = ("--heartbeat-interval=200", "--election-timeout=3000")
# small buffers: what RocksDB's files take by themselves is little beside what is logged
FLAGS = (*STEADY, "--write-buffer-bytes=16777216", f"--order-log-bytes={BOUND}")


@pytest.fixture
def hosts(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    flags = (*FLAGS, *getattr(request, "param", ()))
    with local_cluster(tmp_path / "c", 3, f"--shards={SHARDS}", "--fronts=0", extra=flags) as cluster:
        yield Hosts(cluster)


def follower(hosts: Hosts) -> int:
    """A host that leads nothing, once every shard has a leader."""

    def found() -> list[int]:
        leading = [
            [f["shard"] for f in facts(hosts, h) if f["up"] and f["role"] == "leader"] for h in range(3)
        ]
        return [leading.index([])] if sum(map(len, leading)) == SHARDS and [] in leading else []

    return int(until(found)[0])


def put(client: Client, key: str, value: bytes = VALUE, lease: int = 0) -> None:
    client.call("KV/Put", pb.PutRequest(key=key.encode(), value=value, lease=lease), pb.PutResponse, 30.0)


def delete(client: Client, key: str) -> int:
    return int(
        client.call("KV/DeleteRange", pb.DeleteRangeRequest(key=key.encode()), pb.DeleteRangeResponse).deleted
    )


def get(client: Client, key: str) -> bytes:
    kvs = client.call("KV/Range", pb.RangeRequest(key=key.encode()), pb.RangeResponse).kvs
    return bytes(kvs[0].value) if kvs else b""


def refused(client: Client, key: str, value: bytes = b"v") -> bool:
    """Whether a put is refused for want of space."""
    try:
        put(client, key, value)
    except grpc.RpcError as e:
        if e.details() != NO_SPACE:
            raise
        return True
    return False


def alarms(client: Client) -> list[int]:
    """Hosts that have raised NOSPACE."""
    answer = client.call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse)
    return [a.memberID for a in answer.alarms if a.alarm == pb.NOSPACE]


def disarm(client: Client) -> None:
    for member_id in alarms(client):
        client.call(
            "Maintenance/Alarm",
            pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=pb.NOSPACE),
            pb.AlarmResponse,
        )


def bytes_in(folder: Path) -> int:
    """What the files of a folder take of the disk."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


class Filling:
    """Clients that put large values on a few keys of shard 0 as fast as they can, and compact; until they are
    refused."""

    def __init__(
        self, hosts: Hosts, threads: int = 4, compact: bool = True, shards: int = SHARDS
    ) -> None:
        self._hosts = hosts
        self._host = hosts.leader()
        self._compact = compact
        self.done = 0
        self.refused = threading.Event()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(key,)) for key in keys_of(0, shards, threads)
        ]

    def __enter__(self) -> Filling:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _run(self, key: str) -> None:
        client = Client(self._hosts, self._host)
        for count in itertools.count(1):
            if self._ending.is_set() or self.refused.is_set():
                break
            try:
                answer = client.call(
                    "KV/Put", pb.PutRequest(key=key.encode(), value=VALUE), pb.PutResponse, 30.0
                )
            except grpc.RpcError as e:
                if e.details() == NO_SPACE:
                    self.refused.set()
                continue
            self.done += 1
            if self._compact and count % 20 == 0:
                with contextlib.suppress(grpc.RpcError):  # another thread was further on
                    client.call(
                        "KV/Compact", pb.CompactionRequest(revision=answer.header.revision),
                        pb.CompactionResponse,
                    )
        client.close()


@pytest.mark.longer
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("who", ["nobody", "a sibling"])
def test_the_order_log_stays_within_its_bound_at_full_speed(hosts: Hosts, who: str) -> None:
    """Large values on shard 0, with all well and with the node of shard 1 stopped on one host; it comes back
    afterwards."""
    away = follower(hosts)
    least = TWICE if who == "nobody" else ENOUGH
    with clients(hosts) as found:
        put(found[0], keys_of(1, SHARDS, 1)[0], b"v")
        most = [0, 0, 0]
        with contextlib.ExitStack() as stack:
            if who != "nobody":
                stack.enter_context(stopped(hosts.node_pid(away, 1)))
            filling = stack.enter_context(Filling(hosts))
            ends = time.monotonic() + SECONDS
            while not filling.refused.is_set() and (time.monotonic() < ends or filling.done * MIB <= least):
                assert time.monotonic() < ends + SLOW_S, "too slow to show anything"
                most = [max(a, bytes_in(hosts.shard_dir(h) / "log")) for h, a in enumerate(most)]
                time.sleep(0.1)
            done = filling.done
        print(f"{who}: {done} MiB, order logs took {[m // MIB for m in most]} MiB at most")
        assert not filling.refused.is_set()
        assert max(most) < BOUND
        assert alarms(found[0]) == []
        last = max(order_index(hosts, h, 0) for h in range(3))
        until(lambda: all(order_index(hosts, h, s) >= last for h in range(3) for s in range(SHARDS)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("hosts", [("--order-kept-bytes=0",)], indirect=True)
def test_a_shard_without_a_majority_stops_writes_before_disks_fill_and_no_reads_nor_deletes(
    hosts: Hosts,
) -> None:
    """Where no files may keep what it needs (test_kept.py)."""
    leader, mine = hosts.leader(), keys_of(0, SHARDS, 6)
    follower(hosts)
    away = [h for h in range(3) if h != leader]
    with clients(hosts) as found:
        client = found[leader]
        put(client, mine[5], b"kept")
        with contextlib.ExitStack() as stack:
            for host in away:
                stack.enter_context(stopped(hosts.node_pid(host, 1)))
            with Filling(hosts, compact=False) as filling:
                until(filling.refused.is_set, 120.0)
            assert filling.done * MIB > BOUND // 4
            assert refused(client, mine[4])
            until(lambda: len(alarms(client)) >= 2)
            for host in range(3):
                assert bytes_in(hosts.shard_dir(host) / "log") < BOUND
            assert get(client, mine[5]) == b"kept"
            assert delete(client, mine[0]) == 1
            assert get(client, mine[0]) == b""
            revision = client.call("KV/Range", pb.RangeRequest(key=b"/s"), pb.RangeResponse).header.revision
            # it is acknowledged once every shard has it, which one cannot: its own shards have it all the
            # same
            with contextlib.suppress(grpc.RpcError):
                client.call("KV/Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse, 1.0)

            def compacted() -> bool:
                try:
                    client.call(
                        "KV/Range", pb.RangeRequest(key=mine[5].encode(), revision=revision - 1),
                        pb.RangeResponse,
                    )
                except grpc.RpcError as e:
                    return "compacted" in str(e.details())
                return False

            until(compacted)
        # the shard is back: the log shrinks by itself, and the alarm goes as any other
        until(lambda: all(bytes_in(hosts.shard_dir(host) / "log") < BOUND // 2 for host in range(3)))

        def again() -> bool:
            disarm(client)
            return not refused(client, mine[4])

        until(again)
        until(lambda: alarms(client) == [])
        put(client, mine[4])
        assert get(client, mine[4]) == VALUE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for all hosts."""
    with mounted(tmp_path / "small", "700m") as disk:
        yield disk


@pytest.mark.timeout(300)
def test_writes_stop_at_the_margin_of_free_space_and_deletes_bring_it_back(small_disk: Path) -> None:
    margin = 250 * MIB
    extra = (*STEADY, "--write-buffer-bytes=8388608", f"--min-free-disk-bytes={margin}")
    with local_cluster(small_disk / "c", 3, "--shards=1", "--fronts=0", extra=extra) as cluster:
        hosts = Hosts(cluster)
        with clients(hosts) as found:
            client = found[0]
            lease = client.call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=6000), pb.LeaseGrantResponse).ID
            put(client, "/leased", b"v", lease)
            keys = [f"/k/{n}" for n in range(1000)]
            keys = list(itertools.takewhile(lambda key: not refused(client, key, VALUE), keys))
            assert shutil.disk_usage(small_disk).free > margin // 2
            until(lambda: len(alarms(client)) >= 2)
            assert refused(found[1], "/x")
            assert get(client, keys[0]) == VALUE
            client.call("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease), pb.LeaseRevokeResponse)
            assert get(client, "/leased") == b""
            for key in keys:
                assert delete(client, key) == 1
            revision = client.call("KV/Range", pb.RangeRequest(key=b"/k"), pb.RangeResponse).header.revision
            client.call(
                "KV/Compact", pb.CompactionRequest(revision=revision, physical=True), pb.CompactionResponse,
                60.0,
            )
            until(lambda: shutil.disk_usage(small_disk).free > margin)

            def again() -> bool:
                disarm(client)
                return not refused(client, "/x")

            until(again)
