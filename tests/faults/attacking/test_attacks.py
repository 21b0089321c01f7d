"""One small request spoils itself at most: real hosts, attacked beside a client that behaves.

No process ends, and the client goes on. ``make attack`` runs what is here.
"""

from __future__ import annotations

import contextlib
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import hpack
import psutil
import pytest

from cluster.pb import rpc_pb2
from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from tests import forks
from tests.cluster.local_cluster import (
    STEADY,
    LocalCluster,
    command,
    environment,
    free_base_port,
    local_cluster,
    until,
)
from tests.tries import best_of_three, within

LIMIT_S = 20.0


@pytest.fixture(scope="module", params=["0", "1"], ids=["front in node 0", "front of its own"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    data_dir = tmp_path_factory.mktemp("attacks") / "d"
    with local_cluster(data_dir, 3, "--shards=2", f"--fronts={request.param}", extra=STEADY) as found:
        yield found


def raw(endpoint: str, path: str, body: bytes) -> grpc.StatusCode:
    """One unary call with any bytes as its message; its status."""
    with grpc.insecure_channel(endpoint) as channel:
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        try:
            call(body, timeout=LIMIT_S)
        except grpc.RpcError as e:
            status: grpc.StatusCode = e.code()  # type: ignore[attr-defined]
            return status
        return grpc.StatusCode.OK


def said(endpoint: str, data: bytes) -> bytes:
    """What the server says to these bytes before it closes, or in a while."""
    host, _, port = endpoint.rpartition(":")
    found = b""
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        connection.sendall(data)
        connection.settimeout(1.0)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := connection.recv(65536):
                found += piece
    return found


def http2_call(*fields: tuple[str | bytes, str | bytes]) -> bytes:
    """A connection's first bytes, with one call that carries these fields besides the usual ones."""
    usual = {":method": "POST", ":scheme": "http", ":path": "/etcdserverpb.KV/Put", ":authority": "x",
             "content-type": "application/grpc", "te": "trailers"}
    block = hpack.Encoder().encode([*({**usual, **dict(fields)}).items()])
    return (
        PREFACE
        + f.settings_frame({})
        + f.header_frames(1, block, False)
        + f.frame(f.DATA, f.END_STREAM, 1, bytes(5))
    )


def alarm(number: int) -> bytes:
    return rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, alarm=number).SerializeToString()


@contextlib.contextmanager
def one_host(data_dir: Path, *flags: str, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """A cluster of one host that serves; its client endpoint. Its processes must live to the end."""
    port = free_base_port(1, 1)
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    with forks.popen(
        [
            *prefix,
            *command(
                f"--data-dir={data_dir}", f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}", "--fronts=0", f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}", *flags,
            ),
        ],
        env=environment(),
    ) as host:
        try:
            endpoint = client.removeprefix("http://")
            until(
                lambda: (
                    raw(endpoint, "/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=b"up").SerializeToString())
                    is grpc.StatusCode.OK
                )
            )
            began = started(host.pid)
            yield endpoint
            assert (host.poll(), started(host.pid)) == (None, began)
        finally:
            host.terminate()


def started(pid: int) -> set[int]:
    """A host's processes."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


Attack = Callable[[str], object]
_ALARM = "/etcdserverpb.Maintenance/Alarm"
ATTACKS: dict[str, Attack] = {
    "an alarm of type 7": lambda at: raw(at, _ALARM, alarm(7)) is grpc.StatusCode.INVALID_ARGUMENT,
    "an alarm of type 300": lambda at: raw(at, _ALARM, alarm(300)) is grpc.StatusCode.INVALID_ARGUMENT,
    "an alarm action of type 9": lambda at: raw(at, _ALARM, b"\x08\x09") is grpc.StatusCode.INVALID_ARGUMENT,
    "content-length of 5000 digits": lambda at: said(at, http2_call(("content-length", "9" * 5000))),
    "metrics for text/plain;version=x": lambda at: (
        b" 200 " in said(at, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=x\r\n\r\n")
    ),
    "status of counters": lambda at: (
        raw(at, "/etcdserverpb.Maintenance/Status", b"counters") is grpc.StatusCode.INTERNAL
    ),
    "status of facts": lambda at: (
        raw(at, "/etcdserverpb.Maintenance/Status", b"facts") is grpc.StatusCode.INTERNAL
    ),
    "hash of odd bytes": lambda at: (
        raw(at, "/etcdserverpb.Maintenance/Hash", b"\xff") is grpc.StatusCode.INTERNAL
    ),
    "health of half a string": lambda at: (
        raw(at, "/grpc.health.v1.Health/Check", b"\x0a") is grpc.StatusCode.INTERNAL
    ),
    "a path of 30,000 odd bytes": lambda at: said(
        at, http2_call((b":path", b"/" + b"\xff" * 10_000 + b"/x"))
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_one_small_request_ends_nothing(cluster: LocalCluster, name: str) -> None:
    """Each of these ended a front, a leader, or every replica for good, or froze a host for seconds."""
    before, endpoints = cluster.pids(), cluster.endpoints()
    with ThreadPoolExecutor(len(endpoints)) as pool:
        assert all(pool.map(ATTACKS[name], endpoints)), name
    for endpoint in endpoints:
        until(
            lambda endpoint=endpoint: (
                raw(  # type: ignore[misc]
                    endpoint,
                    "/etcdserverpb.KV/Put",
                    rpc_pb2.PutRequest(key=b"k", value=name.encode()).SerializeToString(),
                )
                is grpc.StatusCode.OK
            ),
            LIMIT_S,
        )
    assert cluster.pids() == before


METHODS = {
    "KV": ("Range", "Put", "DeleteRange", "Txn", "Compact", "RangeStream"),
    "Watch": ("Watch",),
    "Lease": ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases", "LeaseKeepAlive"),
    "Cluster": ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"),
    "Maintenance": ("Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"),
    "Auth": ("AuthEnable", "AuthStatus", "Authenticate", "UserAdd", "RoleGet"),
}
# no message; half of one; a length beyond its end; a varint beyond 64 bits; what fronts once asked nodes;
# fields with unknown numbers of enums; a field number of 2^29 - 1
BODIES = (
    b"\xff", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x08" + b"\xff" * 9 + b"\x7f", b"counters", b"facts",
    bytes(64), b"\x18\x07", b"\x12\x80", b"\x20\x63\x28\x63", b"\xf8\xff\xff\xff\x0f\x01",
)


def test_every_method_takes_any_bytes(cluster: LocalCluster) -> None:
    before, endpoint = cluster.pids(), cluster.endpoints()[0]
    paths = [
        f"/etcdserverpb.{service}/{method}" for service, methods in METHODS.items() for method in methods
    ]
    with grpc.insecure_channel(endpoint) as channel:
        for path in (*paths, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"):
            call = channel.stream_stream(path, request_serializer=bytes, response_deserializer=bytes)
            streams = [call(iter((body,)), timeout=1.0) for body in BODIES]
            for stream in streams:
                with contextlib.suppress(grpc.RpcError):
                    next(iter(stream), None)  # an answer, or its end
                stream.cancel()
    assert (
        raw(endpoint, "/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=b"k").SerializeToString())
        is grpc.StatusCode.OK
    )
    assert cluster.pids() == before


def pipelined_versions(connection: socket.socket) -> bytes:
    """Pipelined GET /version, on four connections."""
    return b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 400


def huffman_headers(connection: socket.socket) -> bytes:
    """Huffman-coded headers of 8 KB that no cache holds, on four connections: the table is emptied each
    time."""
    connection.sendall(PREFACE + f.settings_frame({}))
    block = b"\x20" + hpack.Encoder().encode([
        (":method", "POST"), (":scheme", "http"), (":path", "/a.B/" + "a" * 8000), (":authority", "x"),
        ("content-type", "application/grpc"), ("te", "trailers")], huffman=True)
    return b"".join(f.header_frames(number, block, True) for number in range(1, 41, 2))


@pytest.mark.parametrize("flood", [pipelined_versions, huffman_headers])
@best_of_three
def test_a_flood_of_four_connections_spoils_nobodys_turn(
    cluster: LocalCluster, flood: Callable[[socket.socket], bytes]
) -> None:
    """Each read was worked off whole: others' puts took 4.5 to 7 s, and a leader fell."""
    before, leader, endpoint = cluster.pids(), cluster.leader(), cluster.endpoints()[cluster.leader()]
    host, _, port = endpoint.rpartition(":")
    stop = threading.Event()

    def flooding() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection,
            ):
                data = flood(connection)
                connection.settimeout(0.05)
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.sendall(data)
                    with contextlib.suppress(TimeoutError):
                        if not connection.recv(1 << 20):
                            break

    threads = [threading.Thread(target=flooding) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        slowest = 0.0
        with grpc.insecure_channel(endpoint) as channel:
            put = channel.unary_unary(
                "/etcdserverpb.KV/Put", response_deserializer=rpc_pb2.PutResponse.FromString
            )
            for number in range(60):
                began = time.monotonic()
                put(
                    rpc_pb2.PutRequest(key=b"beside", value=b"%d" % number).SerializeToString(),
                    timeout=LIMIT_S,
                )
                slowest = max(slowest, time.monotonic() - began)
                stop.wait(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (cluster.pids(), cluster.leader()) == (before, leader)
    within(slowest, 2.0, "a put")  # on a busy machine; some 0.05 s on a quiet one


def test_a_store_whose_log_holds_an_alarm_without_a_name_starts_and_serves(tmp_path: Path) -> None:
    """Made by a version that logged such an alarm: it ended when it applied it, and again at every start."""
    with tarfile.open(Path(__file__).parent / "data" / "alarm-7.tar.xz") as made:
        # Python 3.11.4
        made.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    with (
        one_host(tmp_path / "old.muster", "--name=h1") as endpoint,
        grpc.insecure_channel(endpoint) as channel,
    ):
        ranges = channel.unary_unary(
            "/etcdserverpb.KV/Range", response_deserializer=rpc_pb2.RangeResponse.FromString
        )
        found = ranges(
            rpc_pb2.RangeRequest(key=b"before0", range_end=b"before9").SerializeToString(), timeout=LIMIT_S
        )
        assert [(kv.key, kv.value) for kv in found.kvs] == [(b"before%d" % i, b"v%d" % i) for i in range(3)]
        listed = channel.unary_unary(_ALARM, response_deserializer=rpc_pb2.AlarmResponse.FromString)
        assert not listed(b"", timeout=LIMIT_S).alarms


def test_connections_beyond_the_descriptors_leave_the_host_alone(tmp_path: Path) -> None:
    """400 connections at a limit of 300 ended the leader: it could not open a file, and took that for its
    disk's end."""
    with (one_host(tmp_path / "d", prefix=("prlimit", "--nofile=300:300")) as endpoint,
          grpc.insecure_channel(endpoint) as channel, contextlib.ExitStack() as held):
        put = channel.unary_unary(
            "/etcdserverpb.KV/Put", response_deserializer=rpc_pb2.PutResponse.FromString
        )
        value = rpc_pb2.PutRequest(key=b"k", value=bytes(100_000)).SerializeToString()
        put(value, timeout=LIMIT_S)
        host, _, port = endpoint.rpartition(":")
        for _ in range(400):
            held.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S))
        for _ in range(400):  # 40 MB: files of the log and tables are opened
            put(value, timeout=LIMIT_S)
        held.close()
        until(lambda: raw(endpoint, "/etcdserverpb.KV/Put", value) is grpc.StatusCode.OK, LIMIT_S)
