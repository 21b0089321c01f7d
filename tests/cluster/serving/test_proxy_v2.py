"""``muster --proxy``: an etcd proxy of version 2, as the articles start it, before three hosts."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from cluster.pb import rpc_pb2
from tests.cluster.local_cluster import (
    LIMIT_S,
    LocalCluster,
    free_base_port,
    local_cluster,
    shards_of_tests,
    until,
)
from tests.cluster.one_host import Host, started
from tests.interop.v2.v2_hosts import Server, serves

pytestmark = pytest.mark.timeout(400)
WAITERS = 1000
STEADY = ("--election-timeout=5000", "--log-format=console")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    extra = (
        "--election-timeout=5000", "--unsafe-no-fsync", "--strict-reconfig-check=false",
        "--peer-insecure",  # connections are counted at ports: not by sockets of one user
    )
    with local_cluster(tmp_path_factory.mktemp("proxied") / "c", 3, extra=extra) as running:
        yield running


@pytest.fixture(scope="module")
def read_write(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    flags = ("--proxy=on", f"--initial-cluster={initial(cluster)}", "--proxy-refresh-interval=200")
    with proxy(tmp_path_factory.mktemp("read-write") / "p", *flags) as host:
        server_of(host)
        yield host


def peer_urls(cluster: LocalCluster) -> list[str]:
    return sorted(url for host in cluster.status()["hosts"] for url in host["peer_urls"])


def initial(cluster: LocalCluster) -> str:
    return ",".join(f"m{i}={url}" for i, url in enumerate(peer_urls(cluster)))


def proxy(data_dir: Path, *flags: str) -> contextlib.AbstractContextManager[Host]:
    """A host that is no member."""
    return started(data_dir, 0, shards_of_tests(), *flags, *STEADY)


def server_of(host: Host) -> Server:
    """Its client URL, once it serves."""
    server = Server(f"127.0.0.1:{host.port}")

    def up() -> bool:
        assert host.process.poll() is None, host.log.read_text()
        return serves(server)

    until(up)
    return server


def upstream(host: Host, cluster: LocalCluster) -> int:
    """How many connections to members' peer ports a proxy's processes have."""
    ports = {int(url.rpartition(":")[2]) for url in peer_urls(cluster)}
    found = psutil.Process(host.process.pid).children(recursive=True)
    connections = [c for p in found for c in p.net_connections() if c.status == "ESTABLISHED"]
    return sum(c.raddr.port in ports for c in connections)


@contextlib.contextmanager
def descriptors(wanted: int) -> Iterator[None]:
    """So many files and sockets may be open here for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * wanted:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def put(server: Server, key: str, value: str) -> None:
    """A write that has come into effect."""
    until(lambda: server.ask("PUT", f"/v2/keys/{key}", f"value={value}").status in (200, 201))


def has(server: Server, key: str, value: str) -> bool:
    """Whether a key has a value, read through the log."""
    return f'"value":"{value}"' in server.ask("GET", f"/v2/keys/{key}?quorum=true").body


def stop(host: Host) -> None:
    host.process.send_signal(signal.SIGTERM)
    assert host.process.wait(LIMIT_S) == 0


def test_a_thousand_waiters_at_a_proxy_are_no_more_to_the_members_than_one(
    cluster: LocalCluster, read_write: Host
) -> None:
    host, server = read_write, Server(f"127.0.0.1:{read_write.port}")
    put(server, "w", "0")
    with contextlib.ExitStack() as stack:
        stack.enter_context(descriptors(2 * WAITERS))
        waiting = []
        for _ in range(WAITERS):
            s = stack.enter_context(socket.create_connection(("127.0.0.1", host.port), LIMIT_S))
            s.sendall(b"GET /v2/keys/w?wait=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.append(s.makefile("rb"))
        for answer in waiting:
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"  # the head: it waits
        # a few for each shard, and one that is dialled anew may be counted twice
        assert 0 < upstream(host, cluster) < 10 * shards_of_tests()
        put(Server(cluster.endpoints()[0]), "w", "1")
        for answer in waiting:
            assert b'"value":"1"' in answer.read()


def test_a_proxy_serves_both_versions_and_tells_whom_it_serves(
    cluster: LocalCluster, read_write: Host
) -> None:
    server = Server(f"127.0.0.1:{read_write.port}")
    put(server, "on", "v")
    until(lambda: has(Server(cluster.endpoints()[1]), "on", "v"))
    # a host tells its client URLs once it serves
    urls = sorted(f"http://{endpoint}" for endpoint in cluster.endpoints())
    until(lambda: json.loads(server.ask("GET", "/v2/config/local/proxy").body) == {"endpoints": urls})
    shown = server.ask("GET", "/v2/config/local/proxy")
    assert shown.headers["content-type"] == "text/plain; charset=utf-8"
    assert shown.body.endswith("]}\n")
    assert server.ask("PUT", "/v2/config/local/proxy", "x=y").status == 405
    assert Server(cluster.endpoints()[0]).ask("GET", "/v2/config/local/proxy").status == 404
    until(lambda: server.ask("GET", "/v2/members").body.count('"peerURLs"') == 3)
    with grpc.insecure_channel(f"127.0.0.1:{read_write.port}") as channel:
        assert read(channel, b"none").count == 0
    kept = read_write.data_dir / "proxy" / "cluster"
    assert json.loads(kept.read_text()) == {"PeerURLs": peer_urls(cluster)}
    assert not (read_write.data_dir / "member").exists()


def read(channel: grpc.Channel, key: bytes) -> rpc_pb2.RangeResponse:
    call = channel.unary_unary(
        "/etcdserverpb.KV/Range", rpc_pb2.RangeRequest.SerializeToString, rpc_pb2.RangeResponse.FromString)
    found = call(rpc_pb2.RangeRequest(key=key), timeout=LIMIT_S)
    assert isinstance(found, rpc_pb2.RangeResponse)
    return found


def test_a_readonly_proxy_answers_get_alone(cluster: LocalCluster, tmp_path: Path) -> None:
    put(Server(cluster.endpoints()[0]), "ro", "v")
    with proxy(tmp_path / "p", "--proxy=readonly", f"--initial-cluster={initial(cluster)}") as host:
        server = server_of(host)
        until(lambda: has(server, "ro", "v"))
        for method, path, body in (
            ("PUT", "/v2/keys/ro", "value=w"),
            ("POST", "/v2/keys/ro", "value=w"),
            ("DELETE", "/v2/keys/ro", None),
            ("HEAD", "/v2/keys/ro", None),
            ("OPTIONS", "/v2/keys/ro", None),
            ("POST", "/v3/kv/put", "{}"),
            ("POST", "/nowhere", ""),
        ):
            answer = server.ask(method, path, body)
            assert (answer.status, answer.body) == (501, ""), method
        assert server.ask("GET", "/version").status == 200
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                read(channel, b"k")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        until(lambda: has(server, "ro", "v"))


def test_a_proxy_stays_one_until_it_is_made_a_member(cluster: LocalCluster, tmp_path: Path) -> None:
    data = tmp_path / "p"
    port = free_base_port(1, shards_of_tests())
    begin = (data, port, shards_of_tests(), *STEADY)
    with started(*begin, "--proxy=on", f"--initial-cluster={initial(cluster)}") as host:
        server_of(host)
        stop(host)
    # neither the flag nor a list is needed any more
    with started(*begin, "--initial-cluster=x=http://127.0.0.1:1") as host:
        server = server_of(host)
        assert "starting as etcd proxy" in host.log.read_text()
        # the article's procedure: add, stop, remove the folder, start as a member
        own = f"http://127.0.0.1:{port + 1}"
        add = json.dumps({"peerURLs": [own]})
        # 409: it is added, though an answer before this one said otherwise
        until(lambda: server.ask("POST", "/v2/members", add, "application/json").status in (201, 409))
        stop(host)
    shutil.rmtree(data / "proxy")
    members = f"{initial(cluster)},m3={own}"
    flags = ("--name=m3", "--initial-cluster-state=existing", f"--initial-cluster={members}",
             f"--initial-advertise-peer-urls={own}")  # fmt: skip
    with joined(*begin, *flags) as member:
        server = server_of(member)
        until(lambda: '"name":"m3"' in server.ask("GET", "/v2/members").body)
        assert (data / "member").exists()
        assert not (data / "proxy").exists()


def test_a_cluster_that_was_made_anew_is_served_without_a_restart(tmp_path: Path) -> None:
    port = free_base_port(1, shards_of_tests())
    own = f"http://127.0.0.1:{port + 1}"
    flags = (f"--initial-advertise-peer-urls={own}", "--unsafe-no-fsync", *STEADY)
    with contextlib.ExitStack() as stack:

        def made(name: str) -> Host:
            host = started(
                tmp_path / name, port, shards_of_tests(), f"--initial-cluster-token={name}", *flags)
            return stack.enter_context(host)

        member = made("first")
        host = stack.enter_context(proxy(
            tmp_path / "p", "--proxy=on", f"--initial-cluster=default={own}", "--proxy-refresh-interval=200"))
        server = server_of(host)
        put(server, "k", "before")
        stop(member)
        until(lambda: server.ask("GET", "/version").status == 502)
        for path in ("/version", "/health", "/v2/keys/k", "/nothing"):
            assert server.ask("GET", path).status == 503, path
        put(server_of(made("second")), "k", "after")
        server = server_of(host)
        until(lambda: has(server, "k", "after"))
        assert host.process.poll() is None
        stop(host)


@contextlib.contextmanager
def joined(data_dir: Path, port: int, shards: int, *flags: str) -> Iterator[Host]:
    """A host that joins: it is started again while nobody tells it in time who the members are."""
    host = Host(data_dir, port, shards, *flags)
    try:

        def is_in() -> bool:
            nonlocal host
            if host.process.poll() is None:
                return serves(Server(f"127.0.0.1:{port}"))
            assert "cannot fetch cluster info" in host.log.read_text(), host.log.read_text()
            host = Host(data_dir, port, shards, *flags)
            return False

        until(is_in, 4 * LIMIT_S)
        yield host
    finally:
        host.kill()
