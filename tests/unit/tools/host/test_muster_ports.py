"""A host's own ports are compared before anything starts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from proxy.grpc.registry import Registry
from proxy.listener.server import Server
from proxy.main import split_url
from tests.ports import free_base_port, free_ports
from tests.unit.tools.test_muster_cli import muster
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host import ports
from tools.muster.host.identity import bootstrap
from tools.muster.host.specs import _of_front
from tools.muster.machine.everywhere import knows_ipv6
from tools.muster.machine.zmtp.port.bound import Bound

CLIENT = ("--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379")


def built(*args: str) -> config.ServerConfig:
    return config.build(resolve(SERVER_FLAGS, [*CLIENT, *args], {}))


@pytest.mark.parametrize(
    ("shards", "args", "message"),
    [
        (
            2,
            ("--listen-metrics-urls=http://localhost:2380",),
            "--listen-metrics-urls=http://localhost:2380 and --listen-peer-urls=http://localhost:2380 would "
            "both listen on 127.0.0.1:2380",
        ),
        (
            1,
            ("--listen-peer-urls=http://127.0.0.1:2379",),
            "--listen-client-urls=http://127.0.0.1:2379 and "
            "--listen-peer-urls=http://127.0.0.1:2379 would both listen on "
            "127.0.0.1:2379",
        ),
        (
            1,
            ("--listen-metrics-urls=http://0.0.0.0:2379",),
            "--listen-client-urls=http://127.0.0.1:2379 and --listen-metrics-urls=http://0.0.0.0:2379 would "
            "both listen on 0.0.0.0:2379",
        ),
    ],
)
def test_two_of_its_ports_that_are_the_same_are_refused(
    shards: int, args: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        ports.compare(built(*args), shards)
    assert str(error.value) == message


def test_localhost_that_means_another_address_takes_no_peers_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "bind_address", lambda url: "10.0.0.1")
    with pytest.raises(ConfigError, match=r"is 10\.0\.0\.1 here, which is no loopback address"):
        ports.compare(built("--listen-peer-urls=http://localhost:2380"), 1)
    ports.compare(built("--listen-peer-urls=http://localhost:2380", "--peer-insecure"), 1)


@pytest.mark.parametrize(("shards", "args"), [
    (3, ("--listen-metrics-urls=http://localhost:2381",)),
    (2, ("--listen-metrics-urls=http://127.0.0.2:2381",)),
    (2, ("--listen-metrics-urls=http://[::]:2381",)),
])
def test_ports_of_other_addresses_may_be_the_same(shards: int, args: tuple[str, ...]) -> None:
    ports.compare(built(*args), shards)


@pytest.mark.parametrize("host", ["[::]", "0.0.0.0"])
@pytest.mark.parametrize("flag", ["client-urls", "client-http-urls", "metrics-urls"])
def test_every_address_of_one_family_is_every_address_of_the_other_too(flag: str, host: str) -> None:
    """As in Go. ``::`` took no IPv4 client once, and ``0.0.0.0`` none of IPv6."""
    (port,) = free_ports(1)
    settings = built(f"--listen-{flag}=http://{host}:{port}")
    ports.compare(settings, 1)
    urls = {
        "client-urls": settings.listen_client,
        "client-http-urls": settings.listen_http,
        "metrics-urls": settings.listen_metrics,
    }[flag]
    (url,) = _of_front(settings, urls, 0)

    async def scenario() -> None:
        fronts = [Server(Registry()) for _ in range(2)]
        try:
            for front in fronts:
                await front.start(*split_url(url)[1:], reuse_port=True)
                found = {host for host, number in front.addresses if number == port}
                assert found == ({"::", "0.0.0.0"} if ports.knows_ipv6() else {"0.0.0.0"})
            for at in ("127.0.0.1", "::1") if ports.knows_ipv6() else ("127.0.0.1",):
                _, writer = await asyncio.open_connection(at, port)
                writer.close()
        finally:
            for front in fronts:
                await front.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(("args", "hosts"), [
    (("--listen-client-urls=http://[::]:1,http://0.0.0.0:1",), ["::", "0.0.0.0"]),
    (("--listen-client-urls=http://[::]:1,https://[::]:1", "--cert-file=c", "--key-file=k"), ["", ""]),
    (("--listen-client-urls=http://[::]:1,http://[::1]:2,http://0.0.0.0:2",), ["", "::1", "0.0.0.0"]),
    (("--listen-client-urls=http://[::]:1", "--listen-metrics-urls=http://127.0.0.1:1"), ["::"]),
    (("--listen-client-urls=http://[::]:1,unix:///s",), ["", "/s"]),
    (("--listen-client-urls=http://0.0.0.0:1",), [""]),
    (("--listen-client-urls=http://0.0.0.0:1,http://[::1]:1",), ["0.0.0.0", "::1"]),
    (("--listen-client-urls=http://0.0.0.0:1", "--listen-metrics-urls=http://[::]:1"), ["0.0.0.0"]),
])
def test_a_family_stays_with_a_url_that_names_it(
    monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], hosts: list[str]
) -> None:
    monkeypatch.setattr(ports, "knows_ipv6", lambda: True)
    settings = built(*args)
    ports.compare(settings, 1)
    urls = ports.client_urls(settings)
    assert [ports.client_address(url, urls) for url in settings.listen_client] == hosts


@pytest.mark.parametrize(("depth", "name"), [(1, ""), (60, ""), (1, "n" * 104), (60, "n/" + "n" * 102)])
def test_a_relative_socket_is_bound_in_a_long_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int, name: str
) -> None:
    """A long one ended the start with "input/output error": the kernel takes no such path in full. It takes
    107 bytes."""
    here = tmp_path.joinpath("d" * depth, "d" * depth)
    here.joinpath(name).parent.mkdir(parents=True)
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    peers_name = name.replace("/", "n")
    settings = built(f"--listen-client-urls=unix://{name}s:1", f"--listen-peer-urls=unix://{peers_name}p:1",
                     f"--initial-advertise-peer-urls=unix://{peers_name}p:1", "--port-wait=0s")
    ports.check(settings, bootstrap.identity_of(settings), structlog.get_logger("test"))
    clients, peers = ports.listeners(settings, 1)
    assert [os.path.abspath(one.host) for one in (clients, peers)] == [
        f"{here}/{name}s:1", f"{here}/{peers_name}p:1"]
    (to_bind,) = _of_front(settings, settings.listen_client, 0)
    assert split_url(to_bind)[1] == clients.host
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(clients.host)
        held.listen(1)
        with pytest.raises(ConfigError, match=r"listen unix .*s:1: bind: address already in use"):
            ports.check(settings, None, structlog.get_logger("test"))


@pytest.mark.parametrize(("listen", "near"), [
    ("http://10.0.0.1:1,https://[fd00::1]:2", ["http://10.0.0.1:1", "https://[fd00::1]:2"]),
    ("http://0.0.0.0:1,https://[::]:2", ["http://127.0.0.1:1", "https://127.0.0.1:2"]),
    ("unix://s,unixs:///a/s", ["unix:///here/s", "unixs:///a/s"]),
])
def test_programs_of_the_same_machine_are_told_where_they_reach_the_host(
    monkeypatch: pytest.MonkeyPatch, listen: str, near: list[str]
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/here")
    assert ports.near_urls(built(f"--listen-client-urls={listen}", "--cert-file=c", "--key-file=k")) == near


@pytest.mark.parametrize(("peer", "metrics"), [
    ("[::]", "127.0.0.1"), ("127.0.0.1", "[::]"), ("0.0.0.0", "[::1]"), ("[::1]", "0.0.0.0")])
def test_what_takes_both_and_an_address_of_either_are_one_port(
    monkeypatch: pytest.MonkeyPatch, peer: str, metrics: str
) -> None:
    monkeypatch.setattr(ports, "knows_ipv6", lambda: True)
    with pytest.raises(ConfigError, match="would both listen on"):
        ports.compare(built(
            f"--listen-peer-urls=http://{peer}:1", f"--listen-metrics-urls=http://{metrics}:1",
            "--peer-insecure"), 1)


def test_a_machine_without_ipv6_listens_at_all_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def without(family: int = socket.AF_INET, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *more)

    monkeypatch.setattr(socket, "socket", without)
    port, peer_port = free_ports(2)
    settings = built(
        f"--listen-client-urls=http://[::]:{port}", f"--listen-peer-urls=http://[::]:{peer_port}",
        "--peer-insecure", "--port-wait=0s")
    ports.check(settings, None, structlog.get_logger("test"))
    assert [one.host for one in ports.listeners(settings, 1)] == ["0.0.0.0", "0.0.0.0"]


@pytest.mark.parametrize("host", ["[::]", "0.0.0.0"])
def test_peers_reach_a_port_of_all_addresses_by_either_family(host: str) -> None:
    bound = Bound(f"tcp://{host}:0", own_user=False)
    try:
        for family, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))[: len(bound.sockets)]:
            with socket.socket(family) as peer:
                peer.connect((at, bound.port))
        assert len(bound.sockets) == 1 + knows_ipv6()
        with pytest.raises(OSError, match="in use"):
            Bound(f"tcp://{host}:{bound.port}", own_user=False)
    finally:
        bound.close()


@pytest.mark.parametrize("shards", [1, 3])
def test_hosts_of_one_machine_may_have_neighbouring_peer_ports(shards: int) -> None:
    settings = built("--initial-cluster=default=http://localhost:2380,other=http://localhost:2381")
    ports.compare(settings, shards)
    assert [one.address for one in ports.listeners(settings, shards)][1:] == ["127.0.0.1:2380"]


@pytest.mark.parametrize("older", [True, False])
def test_only_a_host_that_an_older_version_made_listens_at_a_port_a_shard_where_they_are_free(
    tmp_path: Path, older: bool
) -> None:
    port = free_base_port(1, 4)
    peer = f"http://127.0.0.1:{port}"
    settings = built(
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}", f"--listen-metrics-urls=http://127.0.0.1:{port + 1}")
    identity = replace(bootstrap.identity_of(settings), shard_count=4, older=older)

    def free(at: int) -> bool:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", at))
            return True
        return False

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", port + 2)):
            door = ports.door(settings, identity, str(tmp_path), structlog.get_logger("test"))
            try:
                # this host's metrics will be at the second, another program is at the third
                assert [free(port + shard) for shard in range(4)] == [False, True, False, not older]
            finally:
                door.close()
            unbound = [
                ("warning", 1, f"127.0.0.1:{port + 1}", "this host listens there for something else"),
                ("warning", 2, f"127.0.0.1:{port + 2}", "address already in use")]
            assert [(line["log_level"], line["shard"], line["address"], line["reason"])
                    for line in logs] == (unbound if older else [])
            with pytest.raises(ConfigError, match=f"listen tcp 127.0.0.1:{port + 2}: bind: address already"):
                ports.door(
                    built(f"--listen-peer-urls=http://127.0.0.1:{port + 2}"), identity, str(tmp_path),
                    structlog.get_logger("test"))

    with capture_logs() as logs:
        asyncio.run(scenario())


@pytest.mark.parametrize("older", [True, False])
def test_a_start_waits_for_the_ports_of_before_and_does_without_those_that_stay_in_use(
    tmp_path: Path, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_base_port(1, 4)
    peer, client = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 3}"
    settings = built(
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", "--port-wait=60s",
        f"--initial-cluster=default={peer}", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}")
    identity = replace(bootstrap.identity_of(settings), shard_count=3, older=older)
    log = structlog.get_logger("test")
    with socket.create_server(("127.0.0.1", port + 1)) as ends, socket.create_server(("127.0.0.1", port + 2)):
        naps: list[float] = []

        def sleep(nap_s: float) -> None:
            naps.append(nap_s)
            if len(naps) == 3:
                ends.close()  # what the host was before has ended
            elif len(naps) == 6:
                monkeypatch.setattr(ports.time, "monotonic", lambda: float("inf"))

        monkeypatch.setattr(ports.time, "sleep", sleep)
        ports.check(settings, identity, log)
        assert len(naps) == (6 if older else 0)


def test_an_identity_without_a_word_on_peer_ports_is_an_older_versions(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    made = bootstrap.identity_of(built())
    for wanted in (made, replace(made, older=True)):
        bootstrap.write_identity(path, wanted)
        assert bootstrap._known(path, path.read_bytes()) == wanted
    assert "one_peer_port" not in path.read_text()
    assert not made.older


def test_a_first_start_that_is_refused_leaves_nobody_behind(tmp_path: Path) -> None:
    """A metrics port that is the peer port: five tracebacks and 226 lines in five seconds, once."""
    done = muster(
        tmp_path, "--shards=2", "--listen-metrics-urls=http://127.0.0.1:2380", "--log-outputs=/dev/null"
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "would both listen on 127.0.0.1:2380" in done.stderr
    assert not bootstrap.is_known(str(tmp_path / "default.etcd"))


@pytest.mark.parametrize("refused_by", ["peer port", "client address", "run directory", "CPUs"])
def test_a_first_start_that_its_machine_refuses_leaves_nobody_behind(tmp_path: Path, refused_by: str) -> None:
    """A member with the peer URL of the refused start was left behind, once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flag, message = {
            "peer port": (
                f"--listen-peer-urls=http://127.0.0.1:{taken.getsockname()[1]}",
                "bind: address already in use"),
            # of TEST-NET-1: no machine has it
            "client address": (
                "--listen-client-urls=http://192.0.2.1:2379", "bind: cannot assign requested address"),
            "run directory": (f"--run-dir={tmp_path / ('d' * 100)}", "is too long for a unix socket's path"),
            "CPUs": ("--cpus=99999", "CPU 99999 is not usable here"),
        }[refused_by]
        client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        usual = (f"--listen-client-urls={client}", f"--listen-peer-urls={peer}")
        done = muster(
            tmp_path, *usual, "--advertise-client-urls=http://127.0.0.1:2379", flag, "--port-wait=0s",
            "--shards=1", "--log-outputs=/dev/null")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr
    assert list((tmp_path / "default.etcd" / "member").iterdir()) == []


@pytest.mark.parametrize("flag", ["client-urls", "client-http-urls", "metrics-urls"])
def test_a_port_of_clients_is_shared_with_another_process_where_a_flag_says_so(flag: str) -> None:
    """The start's check refused it. Several fronts alone share theirs with nobody else."""
    client, port = free_ports(2)
    args = (f"--listen-client-urls=http://127.0.0.1:{client}", f"--listen-{flag}=http://127.0.0.1:{port}",
            "--port-wait=0s", "--fronts=2")
    log = structlog.get_logger("test")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ConfigError, match=r"bind: address already in use$"):
            ports.check(built(*args), None, log)
        ports.check(built(*args, "--socket-reuse-port"), None, log)


def test_a_port_of_peers_is_never_shared() -> None:
    (port,) = free_ports(1)
    settings = built(
        f"--listen-peer-urls=http://127.0.0.1:{port}", "--socket-reuse-port", "--port-wait=0s")
    assert [one.shared for one in ports.listeners(settings, 1) if one.port == port] == [False]


def test_a_unix_socket_that_nobody_listens_on_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    settings = built(f"--listen-client-urls=unix://{path}", "--port-wait=0s")
    listener = ports.listeners(settings, 0)[0]
    assert listener.address == str(path)
    log = structlog.get_logger("test")
    ports.check(settings, None, log)
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ConfigError, match=f"^listen unix {path}: bind: address already in use$"):
            ports.check(settings, None, log)
    ports.check(settings, None, log)
    path.unlink()
    path.write_text("no socket", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^listen unix {path}: bind: address already in use$"):
        ports.check(settings, None, log)
    path.unlink()
    away = built(f"--listen-client-urls=unix://{tmp_path}/away/client.sock")
    with pytest.raises(ConfigError, match=r"client\.sock: bind: no such file or directory$"):
        ports.check(away, None, log)


def test_two_urls_of_one_unix_socket_are_one_listener(tmp_path: Path) -> None:
    path = tmp_path / "client.sock"
    ports.compare(built(f"--listen-client-urls=unix://{path},unix://{path}"), 1)
    with pytest.raises(ConfigError, match="would both listen on"):
        ports.compare(built(f"--listen-client-urls=unix://{path}", f"--listen-metrics-urls=unix://{path}"), 1)
