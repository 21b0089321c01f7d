"""A watch over several shards while one of its host's replicas stands still: bounded memory, and nothing lost
by it."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, stopped, until
from tests.faults.shards import Client, clients, facts, keys_of

SHARDS = 3
LIMIT_BYTES = 100_000  # less than one transaction here changes
VALUE = "v" * 2000
KEYS = 60


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    flags = (f"--shards={SHARDS}", "--fronts=1")
    with local_cluster(tmp_path / "c", 3, *flags, extra=(f"--watch-merge-bytes={LIMIT_BYTES}",)) as cluster:
        yield Hosts(cluster)


class Watching:
    """A watch of everything on one host, and what it got."""

    def __init__(self, client: Client, revision: int) -> None:
        self.events: list[tuple[int, str]] = []
        self._requests: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._requests.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(
            key=b"\0", range_end=b"\0", start_revision=revision)))
        self._call = client.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString)(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # it is cancelled in the end; if it ends before, events are missing
        with contextlib.suppress(grpc.RpcError):
            for response in self._call:
                self.events += [(e.kv.mod_revision, e.kv.key.decode()) for e in response.events]

    def close(self) -> None:
        self._call.cancel()
        self._requests.put(None)
        self._thread.join()


def figures(hosts: Hosts, host: int) -> dict[str, int]:
    """What the front of a host tells of its watches."""
    address, port = hosts.endpoints[host]
    with urllib.request.urlopen(f"http://{address}:{port}/debug/vars", timeout=10) as answer:
        found = json.load(answer)["watch"]
    assert isinstance(found, dict)
    return found


def test_i16_what_waits_for_a_replica_that_stands_still_is_bounded_and_nothing_is_lost(hosts: Hosts) -> None:
    until(lambda: len({f.get("leader") for f in facts(hosts, 0)}) == 1 and facts(hosts, 0)[0].get("leader"))
    host = (hosts.leader() + 1) % 3  # it leads nothing
    with clients(hosts) as found:
        writer, written = found[hosts.leader()], list[tuple[int, str]]()

        def write(shard: int) -> None:
            keys = keys_of(shard, SHARDS, KEYS)
            puts = [
                pb.RequestOp(request_put=pb.PutRequest(key=k.encode(), value=VALUE.encode())) for k in keys
            ]
            revision = writer.txn([], puts).header.revision
            written.extend((revision, key) for key in keys)

        write(1)
        watching = Watching(found[host], written[0][0])
        # a front that hears nothing of a node soon asks another host's: then there is no need to wait
        for _ in range(10):
            until(lambda: len(watching.events) == len(written))
            most = 0
            with stopped(hosts.node_pid(host, 2)):
                for _ in range(10):
                    write(0)
                    write(1)
                    most = max(most, figures(hosts, host)["merge_bytes"])
                until(lambda: figures(hosts, host)["merge_pauses"] or len(watching.events) == len(written))
            write(2)
            # what is one revision is kept whole, of each shard, and so is the record that comes next
            assert most < LIMIT_BYTES + 4 * KEYS * (len(VALUE) + 200)
            if figures(hosts, host)["merge_pauses"]:
                break
        until(lambda: len(watching.events) >= len(written))
        paused = figures(hosts, host)
        watching.close()
    assert watching.events == written
    assert paused["merge_pauses"] > 0
    assert paused["merge_bytes"] == 0
