"""``--discovery URL`` with real processes: hosts find each other in the v2 API of a cluster that runs."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import LIMIT_S, command, environment, until
from tests.cluster.one_host import Host, started
from tests.interop.hosts import unary
from tests.interop.v2.v2_hosts import ETCD, Server, etcd_with_v2, serves
from tests.ports import free_base_port, free_ports

pytestmark = pytest.mark.timeout(400)
STEADY = ("--election-timeout=5000", "--unsafe-no-fsync", "--log-format=console")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A host that knows nothing of the clusters that find each other there."""
    with started(tmp_path_factory.mktemp("service") / "s", 0, 1, "--discovery-service", *STEADY) as host:
        server = Server(f"127.0.0.1:{host.port}")
        until(lambda: serves(server))
        yield server


def directory(server: Server, name: str, size: str = "3") -> str:
    """A new directory for so many hosts; its URL."""
    answer = server.ask("PUT", f"/v2/keys/discovery/{name}/_config/size", f"value={size}")
    assert answer.status == 201
    return f"http://{server.address}/v2/keys/discovery/{name}"


def entries(server: Server, name: str) -> dict[str, str]:
    """What is registered: values by ID."""
    return registered_at(server, f"/v2/keys/discovery/{name}")


def registered_at(server: Server, path: str) -> dict[str, str]:
    nodes = json.loads(server.ask("GET", path).body)["node"].get("nodes", ())
    return {node["key"].rpartition("/")[2]: node["value"] for node in nodes}


def flags(name: str, url: str, peer_port: int) -> tuple[str, ...]:
    return (f"--name={name}", f"--discovery={url}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
            *STEADY)  # fmt: skip


def comes(folder: Path, name: str, url: str) -> Host:
    """A host that is told a directory, and no more."""
    port = free_base_port(1)
    return Host(folder / name, port, 1, *flags(name, url, port + 1))


def refused(folder: Path, name: str, url: str, port: int, *more: str) -> tuple[str, str]:
    """A start that fails: its last line, and its log."""
    listen = f"http://127.0.0.1:{port}"
    done = subprocess.run(
        command(f"--data-dir={folder / name}", f"--listen-client-urls={listen}",
                f"--advertise-client-urls={listen}", f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
                *flags(name, url, port + 1), *more),
        capture_output=True, text=True, check=False, timeout=2 * LIMIT_S, cwd=folder, env=environment(),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1], done.stderr


def members(server: Server) -> dict[str, str]:
    """Names by ID, as a client is told."""
    with contextlib.suppress(OSError):
        found = json.loads(server.ask("GET", "/v2/members").body)["members"]
        return {m["id"]: m["name"] for m in found}
    return {}


def has_value(server: Server) -> bool:
    """Whether what was written is there, read through the log."""
    return '"value":"v"' in server.ask("GET", "/v2/keys/k?quorum=true").body


def test_three_hosts_find_each_other_and_need_the_service_no_more(service: Server, tmp_path: Path) -> None:
    url = directory(service, "three")
    with contextlib.ExitStack() as stack:
        hosts = []
        for name in ("h0", "h1", "h2"):
            hosts.append(comes(tmp_path, name, url))
            stack.callback(hosts[-1].kill)
            until(lambda: len(entries(service, "three")) == len(hosts))
            assert all(host.process.poll() is None for host in hosts)
            if len(hosts) == 1:
                until(lambda: "found 1 peer(s), waiting for 2 more" in hosts[0].log.read_text())
        servers = [Server(f"127.0.0.1:{host.port}") for host in hosts]
        for server in servers:
            until(lambda: serves(server))  # noqa: B023
        registered = entries(service, "three")
        assert registered.keys() == {f"{int(i, 16):x}" for i in members(servers[0])}
        until(lambda: sorted(members(servers[0]).values()) == ["h0", "h1", "h2"])  # published by each
        until(lambda: servers[0].ask("PUT", "/v2/keys/k", "value=v").status in (200, 201))
        until(lambda: has_value(servers[2]))
        assert "found 3 needed peer(s)" in hosts[2].log.read_text()
        # a fourth is a proxy of the three
        fourth = comes(tmp_path, "h3", url)
        stack.callback(fourth.kill)
        proxy = Server(f"127.0.0.1:{fourth.port}")
        until(lambda: serves(proxy))
        until(lambda: has_value(proxy))
        assert "discovery cluster full, falling back to proxy" in fourth.log.read_text()
        assert (tmp_path / "h3" / "proxy" / "cluster").exists()
        assert not (tmp_path / "h3" / "member").exists()
        assert entries(service, "three") == registered
        fourth.kill()
        # what is registered counts for the first start alone: all start again, nobody is there to be asked
        for host in hosts:
            host.kill()
        asked = f"http://127.0.0.1:{free_ports(1)[0]}{url.partition(service.address)[2]}"
        again = [
            stack.enter_context(started(tmp_path / name, host.port, 1, *flags(name, asked, host.port + 1)))
            for name, host in zip(("h0", "h1", "h2"), hosts, strict=True)
        ]
        for server, host in zip(servers, again, strict=True):
            until(lambda: serves(server))  # noqa: B023
            until(lambda: has_value(server))  # noqa: B023
            assert "discovery token ignored since a cluster has already been" in host.log.read_text()


def test_what_cannot_be_is_refused_in_etcds_words(service: Server, tmp_path: Path) -> None:
    base = f"http://{service.address}/v2/keys/discovery"
    port = free_base_port(1)
    failed = "muster: failed to join discovery cluster"
    line, log = refused(tmp_path, "h0", f"{base}/unknown", port)
    assert line == f"{failed} (discovery: size key not found)"
    assert "please generate a new discovery token and try to bootstrap again." in log
    line, _ = refused(tmp_path, "h0", f"http://{service.address}/health", port)
    assert line == f"{failed} (discovery: bad discovery endpoint)"

    url = directory(service, "full", "1")
    service.ask("PUT", "/v2/keys/discovery/full/1", "value=x=http://127.0.0.1:1")
    line, _ = refused(tmp_path, "h0", url, port, "--discovery-fallback=exit")
    assert line == f"{failed} (discovery: cluster is full)"
    assert list(entries(service, "full")) == ["1"]

    url = directory(service, "name", "2")
    service.ask("PUT", "/v2/keys/discovery/name/1", "value=h0=http://127.0.0.1:1")
    line, log = refused(tmp_path, "h0", url, port)
    assert line == f"{failed} (discovery: found duplicate name)"
    assert f"member with duplicated name has registered with discovery service token({url})." in log
    line, log = refused(tmp_path, "h0", url, port)  # whatever it was that failed: it is registered
    assert line == f"{failed} (discovery: found duplicate id)"
    assert f'member "h0" has previously registered with discovery service token ({url}).' in log

    url = directory(service, "address", "2")
    service.ask("PUT", "/v2/keys/discovery/address/1", f"value=x=http://127.0.0.1:{port + 1}")
    line, _ = refused(tmp_path, "h0", url, port)
    assert line.endswith("has duplicate url")
    url = directory(service, "taken", "1")
    taken = int(service.address.rpartition(":")[2])
    line, _ = refused(tmp_path, "h0", url, taken, "--port-wait=0s")
    assert line == f"muster: listen tcp 127.0.0.1:{taken}: bind: address already in use"
    assert entries(service, "taken") == {}, "nobody is registered who cannot come"


def test_a_directory_is_made_by_the_service_and_is_good_for_a_start(service: Server, tmp_path: Path) -> None:
    answer = service.ask("GET", "/new?size=1")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    url = answer.body
    assert re.fullmatch(rf"http://{service.address}/[0-9a-f]{{32}}", url)
    path = url.removeprefix(f"http://{service.address}")
    assert json.loads(service.ask("GET", f"{path}/_config/size").body)["node"]["value"] == "1"
    host = comes(tmp_path, "h0", url)
    try:
        until(lambda: serves(Server(f"127.0.0.1:{host.port}")))
        found = registered_at(service, f"/v2/keys/_etcd/registry{path}")
        assert list(found.values()) == [f"h0=http://127.0.0.1:{host.port + 1}"]
        assert Server(f"127.0.0.1:{host.port}").ask("GET", "/new").status == 404, "it was not told to"
    finally:
        host.kill()
    other = service.ask("PUT", "/new").body  # for three, as with the public service
    assert other != url
    found = service.ask("GET", other.removeprefix(f"http://{service.address}") + "/_config/size")
    assert json.loads(found.body)["node"]["value"] == "3"


def test_hosts_find_each_other_by_keys_of_version_3(service: Server, tmp_path: Path) -> None:
    def put(key: bytes, value: bytes) -> None:
        with grpc.insecure_channel(service.address) as channel:
            unary(channel, "KV/Put", pb.PutResponse)(pb.PutRequest(key=key, value=value), timeout=LIMIT_S)

    def come(name: str, port: int) -> Host:
        by_token = (f"--name={name}", "--discovery-token=both", f"--discovery-endpoints={service.address}",
                    "--discovery-dial-timeout=30s", "--discovery-request-timeout=30s",
                    f"--initial-advertise-peer-urls=http://127.0.0.1:{port + 1}", *STEADY)  # fmt: skip
        return Host(tmp_path / name, port, 1, *by_token)

    put(b"/_etcd/registry/both/_config/size", b"2")
    ports = [free_base_port(1), free_base_port(1)]
    with contextlib.ExitStack() as stack:
        first = come("h0", ports[0])
        stack.callback(first.kill)
        until(lambda: "found 1 peer(s), waiting for 1 more" in first.log.read_text())
        first.kill()  # who has no data yet may come again
        hosts = [come(f"h{i}", port) for i, port in enumerate(ports)]
        for host in hosts:
            stack.callback(host.kill)
        servers = [Server(f"127.0.0.1:{host.port}") for host in hosts]
        for server in servers:
            until(lambda: serves(server))  # noqa: B023
        with grpc.insecure_channel(service.address) as channel:
            at = b"/_etcd/registry/both/members/"
            asked = pb.RangeRequest(key=at, range_end=at[:-1] + b"0")
            found = unary(channel, "KV/Range", pb.RangeResponse)(asked, timeout=LIMIT_S)
        registered = {kv.key.removeprefix(at).decode(): kv.value.decode() for kv in found.kvs}
        assert sorted(registered.values()) == [f"h{i}=http://127.0.0.1:{p + 1}" for i, p in enumerate(ports)]
        until(lambda: members(servers[0]).keys() == {f"{int(i, 16):x}" for i in registered})


def test_an_etcd_is_as_good_a_service_and_finds_others_at_muster(service: Server, tmp_path: Path) -> None:
    with etcd_with_v2(tmp_path) as etcd:
        host = comes(tmp_path, "h0", directory(etcd, "one", "1"))
        try:
            until(lambda: serves(Server(f"127.0.0.1:{host.port}")))
        finally:
            host.kill()
    url = directory(service, "etcds", "2")
    running = []
    try:
        for name in ("e0", "e1"):
            client, peer = (f"http://127.0.0.1:{p}" for p in free_ports(2))
            running.append((client, subprocess.Popen([
                str(ETCD), f"--name={name}", f"--data-dir={tmp_path / name}", f"--discovery={url}",
                "--log-level=error", "--enable-v2", "--unsafe-no-fsync", "--election-timeout=5000",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            ])))  # fmt: skip
        first = Server(running[0][0].removeprefix("http://"))
        until(lambda: serves(first))
        assert members(first).keys() == {f"{int(i, 16):x}" for i in entries(service, "etcds")}
    finally:
        for _, process in running:
            process.kill()
            process.wait()
