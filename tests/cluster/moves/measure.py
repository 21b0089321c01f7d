"""What a move costs: ``python -m tests.cluster.moves.measure 1000000`` moves so many keys of 256 bytes.

Three hosts on this machine, three shards. One client puts into the span that moves, one beside it. Printed:
the seconds of the move, the CPU of the source's and the target's leaders and of all processes, the longest
pause of the span, how long half and 99 % of the puts beside it took, how much of the time their leader ran
and waited for a CPU, and how many turns of nodes' loops took more than 20 ms, before the move and during it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc

from cluster.pb import rpc_pb2 as pb
from cluster.pb import shards_pb2
from tests.cluster.local_cluster import STEADY, LocalCluster, local_cluster, until
from tests.cluster.moves.test_moves import leader_pid, owner
from tests.cluster.serving.test_births import grow
from tests.cluster.serving.test_shards import unary

_SPAN, _END, _BESIDE = "/load/1/", "/load/10", "/load/2/"
_VALUE = b"v" * 256
_AT_ONCE = 100  # keys put in a transaction
_LIMIT_S = 3600.0
_PUTS = 2000  # beside it, before the move


class Puts:
    """A client that puts one key again and again."""

    def __init__(self, endpoint: str, key: bytes) -> None:
        self._channel = grpc.insecure_channel(endpoint)
        self._key = key
        self.took_s: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            unary(self._channel, "KV/Put", pb.PutRequest(key=self._key, value=_VALUE), pb.PutResponse, 60.0)
            self.took_s.append(time.monotonic() - began)
            time.sleep(0.002)  # a light load

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._channel.close()


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Turns:
    """Of a process's main thread: how much of the time it ran, and how much it waited for a CPU."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        ran_ns, waited_ns, _ = Path(f"/proc/{self._pid}/schedstat").read_text(encoding="utf-8").split()
        return time.monotonic(), int(ran_ns) / 1e9, int(waited_ns) / 1e9

    def shares(self) -> str:
        """Since the last time that this was asked."""
        before, self._before = self._before, self._now()
        took_s, ran_s, waited_s = (now - then for now, then in zip(self._before, before, strict=True))
        return f"{100 * ran_s / took_s:.0f}/{100 * waited_s / took_s:.0f} %"


def fill(cluster: LocalCluster, keys: int) -> None:
    with grpc.insecure_channel(cluster.endpoints()[0]) as channel:
        for first in range(0, keys, _AT_ONCE):
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"%s%09d" % (_SPAN.encode(), n), value=_VALUE))
                    for n in range(first, min(first + _AT_ONCE, keys))]
            unary(channel, "KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse, 60.0)


def move(channel: grpc.Channel, target: int) -> None:
    """A move from its beginning to its end. Commands would take the CPUs that are measured."""
    def call(name: str, request: Any, response: Any) -> Any:
        return channel.unary_unary(
            f"/musterpb.Shards/{name}", request_serializer=lambda asked: asked.SerializeToString(),
            response_deserializer=response.FromString)(request, timeout=60.0)

    number = call("Move", shards_pb2.MoveRequest(
        key=_SPAN.encode(), range_end=_END.encode(), target=target), shards_pb2.MoveResponse).move

    def ended() -> bool:
        found = call("Moves", shards_pb2.MovesRequest(), shards_pb2.MovesResponse).moves
        return any(one.move == number and one.step == shards_pb2.Move.SWITCHED for one in found)

    until(ended, _LIMIT_S, look_s=0.1)


def quantiles(took_s: list[float]) -> str:
    ordered = sorted(took_s)
    at = [ordered[int(part * (len(ordered) - 1))] * 1000 for part in (0.5, 0.9, 0.99)] if ordered else []
    return "/".join(f"{found:.1f}" for found in at)


def long_turns(cluster: LocalCluster) -> int:
    found = 0
    for endpoint in cluster.endpoints():
        with urlopen(f"http://{endpoint}/metrics") as told:
            found += sum(int(float(line.split()[-1])) for line in told.read().decode().splitlines()
                         if line.startswith("muster_node_loop_long_turns_total{"))
    return found


def measure(keys: int, folder: Path) -> str:
    with local_cluster(folder / "c", 3, "--shards=3", extra=STEADY) as cluster:
        grow(cluster)
        fill(cluster, keys)
        source = owner(cluster, _SPAN)
        target = max(shard for shard in range(3) if shard not in (source, owner(cluster, _BESIDE)))
        inside = Puts(cluster.endpoints()[0], f"{_SPAN}pause".encode())
        beside = Puts(cluster.endpoints()[1], f"{_BESIDE}beside".encode())
        pids = [leader_pid(cluster, shard) for shard in (source, target)] + cluster.pids()
        leader = Turns(leader_pid(cluster, owner(cluster, _BESIDE)))
        used, began = [cpu_s(pid) for pid in pids], time.monotonic()
        until(lambda: len(beside.took_s) > _PUTS, _LIMIT_S)
        share, turns = all_s(pids, used) / (time.monotonic() - began), long_turns(cluster)
        before, at, alone = quantiles(beside.took_s), len(beside.took_s), leader.shares()
        inside.took_s.clear()
        used, began = [cpu_s(pid) for pid in pids], time.monotonic()
        with grpc.insecure_channel(cluster.endpoints()[2]) as channel:
            move(channel, target)
        took_s, moving = time.monotonic() - began, leader.shares()
        shares = [100 * (cpu_s(pid) - then) / took_s for pid, then in zip(pids[:2], used[:2], strict=True)]
        during_share = all_s(pids, used) / took_s
        during_turns = long_turns(cluster) - turns
        inside.stop()
        beside.stop()
        during = quantiles(beside.took_s[at:])
        return (
            f"{keys} keys in {took_s:.1f} s; CPU of the source's leader {shares[0]:.0f} %, "
            f"of the target's {shares[1]:.0f} %, of all processes {100 * share:.0f} % before, "
            f"{100 * during_share:.0f} % during the move; longest pause {max(inside.took_s) * 1000:.0f} ms; "
            f"p50/p90/p99 beside it {before} ms before, {during} ms during; "
            f"their leader ran/waited for a CPU {alone} of the time before, {moving} during; "
            f"turns of more than 20 ms {turns} before, {during_turns} during")


def all_s(pids: list[int], used: list[float]) -> float:
    """Seconds of CPU of all processes since then. The first two are leaders, which are among the others."""
    return sum(cpu_s(pid) - then for pid, then in zip(pids[2:], used[2:], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(measure(given.keys, Path(folder)) + "\n")


if __name__ == "__main__":
    main()
