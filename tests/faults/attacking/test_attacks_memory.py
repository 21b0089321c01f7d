"""Clients that have much kept for them: none takes a host's memory or its slots (docs/run/security.md).

What connections hold together is bounded to 64 MiB here; a process may take three times as much, while copies
are on the way (decision 52).
"""

from __future__ import annotations

import contextlib
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from cluster.pb import rpc_pb2 as pb
from proxy.http.http2 import frames as f
from tests.cluster.local_cluster import until
from tests.faults.attacking.beside import BOTH_FRONTS, FLOOR_S, TURN_S, Attacked, attacked
from tests.faults.attacking.raw import Raw, message
from tests.faults.attacking.rows import LARGE, LARGE_END
from tests.soaking import SOAK

pytestmark = pytest.mark.timeout(300)
HELD_BYTES = 64 << 20
MOST_BYTES = 3 * HELD_BYTES
HOLD_S = 1.0
CALLS = 300_000 if SOAK else 60_000
_PUT, _RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"
_LARGE_ROWS = pb.RangeRequest(key=LARGE, range_end=LARGE_END).SerializeToString()


@pytest.fixture(scope="module", params=BOTH_FRONTS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacks") / "d"
    with attacked(folder, request.param, f"--max-client-memory-bytes={HELD_BYTES}") as found:
        yield found


def header_blocks(endpoint: str) -> None:
    """40 connections of 200 header blocks each, no two alike, of some 30 octets that mean 60 KB."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            raw = stack.enter_context(Raw(endpoint))
            raw.call("/a.B/C", more=[("x", "x" * 4000)])  # in the table from now on, as entry 62
            opening = raw.block("/a.B/C")
            blocks = [opening + b"\x00\x01y\x04%04d" % n + b"\xbe" * 14 for n in range(200)]
            raw.send(*(f.header_frames(3 + 2 * n, block, True) for n, block in enumerate(blocks)))
        time.sleep(HOLD_S)


def deadlines(endpoint: str) -> None:
    """Very many calls that end at once, with deadlines that are far away."""
    with Raw(endpoint, statuses=False) as raw:
        raw.call("/grpc.health.v1.Health/Check", b"", more=[("grpc-timeout", "1H")])
        block = raw.block("/grpc.health.v1.Health/Check", ("grpc-timeout", "1H"))
        data = message(b"")
        for first in range(3, 2 * CALLS, 2000):
            streams = range(first, first + 2000, 2)
            raw.send(
                *(f.header_frames(n, block, False) + f.frame(f.DATA, f.END_STREAM, n, data) for n in streams)
            )
            raw.read_until_ended(*streams)
            raw.ended.clear()
            raw.received.clear()


def unread_ranges(endpoint: str) -> None:
    """25 ranges of 17 MB whose client reads nothing."""
    with Raw(endpoint, receive_buffer=4096) as raw:
        for _ in range(25):
            raw.call(_RANGE, _LARGE_ROWS)
        time.sleep(HOLD_S)


def health_watches(endpoint: str) -> None:
    """12 streams that ask a million times together and read nothing."""
    with Raw(endpoint, receive_buffer=4096) as raw, contextlib.suppress(OSError):  # it may be turned out
        streams = [raw.call("/grpc.health.v1.Health/Watch", b"", end=False) for _ in range(12)]
        asked = message(b"") * 3276
        for _ in range(25):
            raw.send(*(f.frame(f.DATA, 0, stream, asked) for stream in streams))
        time.sleep(HOLD_S)


def large_puts(endpoint: str) -> None:
    """60 puts of 1 MB on one connection, as fast as its windows allow."""
    body = pb.PutRequest(key=b"/large-put", value=bytes(1_000_000)).SerializeToString()
    with Raw(endpoint) as raw:
        raw.read_until_ended(*[raw.call_in_turn(_PUT, body) for _ in range(60)])
        assert set(raw.ended.values()) <= {"0", "8"}  # done, or RESOURCE_EXHAUSTED


def blind_puts(endpoint: str) -> None:
    """180 puts of 1 MB, read by nobody and whatever the windows say: such a connection is closed."""
    body = pb.PutRequest(key=b"/large-put", value=bytes(1_000_000)).SerializeToString()
    for _ in range(3):
        with contextlib.suppress(OSError), Raw(endpoint, receive_buffer=4096) as raw:
            for _ in range(60):
                raw.call(_PUT, body)


# with what a p99 may come to beside them, on a machine where twice the usual one is less
ATTACKS: dict[Callable[[str], None], float] = {
    header_blocks: 0.4,  # where others fill the machine: 0.33 s, beside an etcd's 0.18
    deadlines: 2 * FLOOR_S, health_watches: 2 * FLOOR_S,
    unread_ranges: 0.6,  # 64 MiB are read and sent to the front at once
    large_puts: 1.0,  # three hosts write each to the one disk that others wait for, too
    blind_puts: 1.0,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_client_does_not_take_the_memory(cluster: Attacked, attack: Callable[[str], None]) -> None:
    cluster.beside(lambda: attack(cluster.endpoint), floor_s=ATTACKS[attack] / 2, most_bytes=MOST_BYTES)


def held(endpoint: str) -> float:
    """Large writes that have waited at the leaders of this host while others asked."""
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines
               if line.startswith("muster_node_large_writes_held_total{"))


def test_large_puts_rest_beside_others_and_not_alone(cluster: Attacked) -> None:
    before = held(cluster.endpoint)
    cluster.turn(TURN_S, lambda: large_puts(cluster.endpoint))
    assert held(cluster.endpoint) - before >= 30  # of 60, of which the bystander's pauses let some go on

    def at_once() -> bool:
        before = held(cluster.endpoint)
        large_puts(cluster.endpoint)
        return held(cluster.endpoint) == before

    until(at_once)  # a second after the bystander's last request
