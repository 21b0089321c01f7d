"""What a move costs: ``python -m tests.cluster.moves.measure 1000000`` moves so many keys of 256 bytes.

Three hosts on this machine, three shards. One client puts into the span that moves, one beside it. Printed:
the seconds of the move, the CPU of the source's and the target's leaders, the longest pause of the span, and
how long 99 % of the puts beside it took, before the move and during it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import STEADY, LocalCluster, local_cluster, until
from tests.cluster.moves.test_moves import begin, is_owned, leader_pid, owner
from tests.cluster.serving.test_births import grow
from tests.cluster.serving.test_shards import unary

_SPAN, _BESIDE = "/load/1/", "/load/2/"
_VALUE = b"v" * 256
_AT_ONCE = 100  # keys put in a transaction
_LIMIT_S = 3600.0


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


def fill(cluster: LocalCluster, keys: int) -> None:
    with grpc.insecure_channel(cluster.endpoints()[0]) as channel:
        for first in range(0, keys, _AT_ONCE):
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"%s%09d" % (_SPAN.encode(), n), value=_VALUE))
                    for n in range(first, min(first + _AT_ONCE, keys))]
            unary(channel, "KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse, 60.0)


def p99_ms(took_s: list[float]) -> float:
    return sorted(took_s)[int(0.99 * (len(took_s) - 1))] * 1000 if took_s else 0.0


def measure(keys: int, folder: Path) -> str:
    with local_cluster(folder / "c", 3, "--shards=3", extra=STEADY) as cluster:
        grow(cluster)
        fill(cluster, keys)
        source = owner(cluster, _SPAN)
        target = max(shard for shard in range(3) if shard not in (source, owner(cluster, _BESIDE)))
        inside = Puts(cluster.endpoints()[0], f"{_SPAN}pause".encode())
        beside = Puts(cluster.endpoints()[1], f"{_BESIDE}beside".encode())
        until(lambda: len(beside.took_s) > 500, _LIMIT_S)
        before, at = p99_ms(beside.took_s), len(beside.took_s)
        inside.took_s.clear()
        pids = [leader_pid(cluster, shard) for shard in (source, target)]
        used, began = [cpu_s(pid) for pid in pids], time.monotonic()
        begin(cluster, target, _SPAN)
        until(is_owned(cluster, target, _SPAN), _LIMIT_S, look_s=0.5)
        took_s = time.monotonic() - began
        shares = [100 * (cpu_s(pid) - then) / took_s for pid, then in zip(pids, used, strict=True)]
        inside.stop()
        beside.stop()
        during = p99_ms(beside.took_s[at:])
        return (
            f"{keys} keys in {took_s:.1f} s; CPU of the source's leader {shares[0]:.0f} %, "
            f"of the target's {shares[1]:.0f} %; longest pause {max(inside.took_s) * 1000:.0f} ms; "
            f"p99 beside it {before:.1f} ms before, {during:.1f} ms during the move")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(measure(given.keys, Path(folder)) + "\n")


if __name__ == "__main__":
    main()
