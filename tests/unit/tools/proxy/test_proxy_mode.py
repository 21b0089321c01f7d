"""``--proxy``: what a data directory says, whom a proxy asks, and what it writes down."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from cluster.members.described import Running
from cluster.members.table import Host
from cluster.settings import PeerTls
from tests.cluster.local_cluster import until
from tests.ports import free_ports
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, UsageError, resolve
from tools.muster.config.urls import parse_url
from tools.muster.host import serve
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.identity.by_url import ClusterFull
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.host.supervising.supervisor import AGAIN, Supervisor
from tools.muster.proxy_mode import fronts, kind, start, unready
from tools.muster.proxy_mode import run as proxy
from tools.muster.proxy_mode.found import Members
from tools.muster.proxy_mode.kind import Kind, kind_of
from tools.muster.proxy_mode.unready import refusing

LOG = structlog.wrap_logger(structlog.testing.CapturingLogger())
ONE, TWO, THREE = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))


def built(tmp_path: Path, *flags: str) -> config.ServerConfig:
    return config.build(resolve(SERVER_FLAGS, (f"--data-dir={tmp_path / 'd'}", *flags), {}))


def running(*urls: str, cluster_id: int = 7, shards: int = 2) -> Running:
    told = tuple(Host(i + 10, f"m{i}", (url,), learner=False) for i, url in enumerate(urls))
    return Running(cluster_id, shards, 3, told)


# -- what a data directory says


def test_a_data_directory_says_whose_it_is(tmp_path: Path) -> None:
    data = tmp_path / "d"
    assert kind_of(str(data)) is Kind.NOBODY
    (data / "member").mkdir(parents=True)
    assert kind_of(str(data)) is Kind.NOBODY, "a first start that was refused leaves this"
    kind.write(str(data), [ONE, TWO])
    assert kind_of(str(data)) is Kind.PROXY
    assert (data / "proxy" / "cluster").read_text() == f'{{"PeerURLs":["{ONE}","{TWO}"]}}'
    assert kind.read(str(data)) == (ONE, TWO)
    (data / "member" / "identity.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^invalid datadir\. Both member and proxy directories exist\.$"):
        kind_of(str(data))
    (data / "proxy" / "cluster").unlink()
    assert kind_of(str(data)) is Kind.MEMBER
    assert kind.read(str(data)) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"PeerURLs":"x"}', '{"PeerURLs":[1]}', "[" * 100_000])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    kind.write(str(tmp_path), [])
    kind.cluster_file(str(tmp_path)).write_text(text)
    with pytest.raises(ConfigError, match=r"cluster is damaged .*: remove it"):
        kind.read(str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "data", "wanted"),
    [
        ((), "", "member"),
        (("--proxy=on",), "", "proxy"),
        (("--proxy=readonly",), "", "proxy"),
        ((), "proxy", "proxy"),  # it stays one, until its folder is removed
        (("--proxy=on",), "member", "member"),
        (("--discovery=http://d/t",), "full", "proxy"),
        (("--discovery=http://d/t", "--discovery-fallback=exit"), "full", "refused"),
    ],
)
def test_what_a_host_runs_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], data: str, wanted: str
) -> None:
    settings = built(tmp_path, *flags)
    if data == "proxy":
        kind.write(settings.data_dir, [ONE])
    if data == "member":
        bootstrap.prepare_data_dir(settings.data_dir)
        bootstrap.keep(settings, bootstrap.establish(settings)[0])
    ran, told = [], list[str]()

    def member(settings: config.ServerConfig) -> int:
        bootstrap.prepare_data_dir(settings.data_dir)
        if data == "full":
            raise ClusterFull("failed to join discovery cluster (discovery: cluster is full)")
        ran.append("member")
        told.extend(settings.warnings)
        return 0

    monkeypatch.setattr(serve, "run", member)
    monkeypatch.setattr(proxy, "run", lambda settings, log: ran.append("proxy") or 0)
    if wanted == "refused":
        with pytest.raises(ClusterFull):
            start.run(settings)
        return
    start.run(settings)
    assert ran == [wanted]
    assert ["already initialized as member" in warning for warning in told] == [True] * (data == "member")
    if data == "full":
        assert not (tmp_path / "d" / "member").exists(), "the next start would find a member there"


def test_what_may_be_a_proxy_need_not_say_what_it_advertises(tmp_path: Path) -> None:
    listen = "--listen-client-urls=http://127.0.0.1:1"
    for more in ("--proxy=on", "--proxy=readonly", "--discovery=http://d/t"):
        built(tmp_path, listen, more)
    for more in ("--proxy=off", "--discovery-fallback=proxy"):
        with pytest.raises(ConfigError, match="--advertise-client-urls is required"):
            built(tmp_path, listen, more)
    with pytest.raises(UsageError, match='invalid value "maybe" for flag -proxy'):
        built(tmp_path, "--proxy=maybe")


# -- whom it asks


class Cluster:
    """What members say by port; those that are missing do not answer."""

    def __init__(self) -> None:
        self.says: dict[int, Running] = {}
        self.asked: list[int] = []
        self.limits: set[float] = set()

    def ask(
        self, addresses: Sequence[tuple[str, int]], key_file: str, tls: PeerTls | None, limit_s: float
    ) -> Running | None:
        ((_, port),) = addresses
        self.asked.append(port)
        self.limits.add(limit_s)
        return self.says.get(port)


def test_a_start_waits_until_a_member_answers(tmp_path: Path) -> None:
    cluster, slept = Cluster(), list[float]()

    def sleep(pause_s: float) -> None:
        slept.append(pause_s)
        if len(slept) == 3:
            cluster.says[2] = running(ONE, TWO)

    members = Members(built(tmp_path, "--proxy-dial-timeout=250"), [ONE, TWO], LOG, cluster.ask, lambda: 0.0)
    assert members.first(sleep) == running(ONE, TWO)
    assert slept == [1.0] * 3
    assert cluster.limits == {0.25}
    assert set(cluster.asked[:6]) == {1, 2}


def test_who_does_not_answer_is_left_alone_for_a_while(tmp_path: Path) -> None:
    cluster, now = Cluster(), [0.0]
    settings = built(tmp_path, "--proxy-failure-wait=5000")
    members = Members(settings, [ONE, TWO], LOG, cluster.ask, lambda: now[0])
    assert members.now() is None
    assert sorted(cluster.asked) == [1, 2]
    now[0] = 4.9
    assert members.now() is None
    assert len(cluster.asked) == 2
    now[0] = 5.0
    cluster.says = {1: running(ONE), 2: running(ONE)}
    assert members.now() == running(ONE)
    assert len(cluster.asked) == 3


@pytest.mark.parametrize("error", [
    ConfigError("not this user's"), ValueError("certificate and key: key values mismatch"),
    FileNotFoundError("peer.keys")])
def test_a_member_that_cannot_be_asked_counts_as_none(tmp_path: Path, error: Exception) -> None:
    """Another user's processes are there, or files are being replaced."""

    def ask(*_: object) -> Running | None:
        raise error

    members = Members(built(tmp_path), [ONE], LOG, ask, lambda: 0.0)
    assert members.now() is None


def test_members_that_come_and_go_are_written_down(tmp_path: Path) -> None:
    settings = built(tmp_path, "--proxy-refresh-interval=100")
    cluster = Cluster()
    members = Members(settings, [ONE], LOG, cluster.ask)
    members.keep(running(ONE))
    assert kind.read(settings.data_dir) == (ONE,)
    cluster.says = {1: running(THREE, ONE, TWO)}

    async def until_written(*urls: str) -> None:
        task = asyncio.ensure_future(members.refresh(running(ONE)))
        async with asyncio.timeout(60):
            while kind.read(settings.data_dir) != urls:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(until_written(ONE, TWO, THREE))
    assert json.loads(kind.cluster_file(settings.data_dir).read_text()) == {"PeerURLs": [ONE, TWO, THREE]}
    # those of another cluster are none
    cluster.says = {port: running(ONE, cluster_id=8) for port in (1, 2)} | {3: running(TWO, THREE)}
    asyncio.run(until_written(TWO, THREE))


def test_a_member_that_cannot_be_dialled_is_left_out(tmp_path: Path) -> None:
    """etcd takes these URLs at MemberAdd, and no host can use them."""
    settings = built(tmp_path, "--proxy-refresh-interval=100")
    cluster = Cluster()
    members = Members(settings, [ONE], LOG, cluster.ask)
    cluster.says = {1: running(ONE, "http://:2380", "unixs://a:1")}

    async def look() -> None:
        task = asyncio.ensure_future(members.refresh(running(ONE)))
        async with asyncio.timeout(60):
            while not members.peers:
                await asyncio.sleep(0.01)
        cluster.says = {1: running(ONE, TWO, "http://:2380")}
        async with asyncio.timeout(60):
            while len(members.peers) != 2:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(look())
    assert [peer.peer_urls for peer in members.peers] == [(ONE,), (TWO,)]
    assert kind.read(settings.data_dir) == (ONE, TWO), "the next start can use them"


@pytest.mark.parametrize(("cluster_id", "shards"), [(8, 2), (7, 4)])  # (with the same token)
def test_another_cluster_is_served_once_no_member_of_the_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster_id: int, shards: int
) -> None:
    """Until a restart, the proxy of a cluster that was made anew answered that it knew no member."""
    settings = built(
        tmp_path, "--proxy=on", "--proxy-refresh-interval=100", f"--initial-cluster=a={ONE},b={TWO}",
        f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}")
    cluster, served = Cluster(), list[tuple[int, int]]()
    cluster.says = {1: running(ONE, TWO)}
    monkeypatch.setattr("tools.muster.proxy_mode.found.asked", lambda *told, **_: cluster.ask(*told))
    monkeypatch.setattr(proxy.os, "umask", lambda mask: 0)

    async def stray(refresh: Coroutine[Any, Any, None]) -> None:
        """One member is of another cluster."""
        cluster.says[2] = running(TWO, cluster_id=cluster_id, shards=shards)
        task = asyncio.ensure_future(refresh)
        while cluster.asked.count(2) < 20:
            await asyncio.sleep(0.01)
        assert not task.done()
        cluster.says[1] = running(ONE, TWO, cluster_id=cluster_id, shards=shards)
        await asyncio.wait_for(task, 60)

    def run(config: object, identity: Identity, log: object, specs: object, beside: Any) -> int:
        served.append((identity.cluster_id, len(identity.shards)))
        if len(served) == 2:
            return 0
        asyncio.run(stray(beside()))
        return AGAIN

    monkeypatch.setattr(fronts, "run", run)
    assert proxy.run(settings, LOG) == 0
    assert served == [(7, 2), (cluster_id, shards)]


def test_a_stray_member_that_answers_alone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    settings = built(tmp_path, "--proxy-refresh-interval=100", "--proxy-failure-wait=0")
    rounds = 0

    def ask(at: Sequence[tuple[str, int]], *_: object) -> Running | None:
        """Of three looks, in each of which the stray is asked twice, the member misses two."""
        nonlocal rounds
        rounds += at[0][1] == 2
        if at[0][1] == 2:
            return running(TWO, cluster_id=8)
        return running(ONE, TWO) if rounds // 2 % 3 == 2 else None

    async def look() -> None:
        task = asyncio.ensure_future(Members(settings, [ONE, TWO], LOG, ask).refresh(running(ONE, TWO)))
        while rounds < 20 and not task.done():
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()

    asyncio.run(look())


class Stopped:
    """A supervisor."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.code = 0

    def stop(self, code: int) -> None:
        self.code = code
        self.stopped.set()

    async def run(self) -> int:
        await self.stopped.wait()
        return self.code


@pytest.mark.parametrize(("ended", "code"), [(0, AGAIN), (3, 3)])
def test_fronts_end_with_what_runs_beside_them(ended: int, code: int) -> None:
    async def ends() -> None:
        if ended:  # a front ends by itself
            supervisor.stop(ended)
            await asyncio.Event().wait()

    async def scenario() -> int:
        return await fronts._beside(ends(), supervisor.run(), cast(Supervisor, supervisor))

    supervisor = Stopped()
    assert asyncio.run(scenario()) == code


def test_a_front_that_is_started_again_is_told_the_members_of_today(tmp_path: Path) -> None:
    settings = built(tmp_path, "--proxy=readonly", "--fronts=2", "--shards=2", "--proxy-failure-wait=4000")
    members = Members(settings, [ONE], LOG, Cluster().ask)
    members.keep(running(TWO, ONE))
    first, second = members.peers
    assert (first.member_id, first.name, first.host, first.port) == (10, "m0", "127.0.0.1", 2)
    assert second.peer_urls == (ONE,)
    identity = Identity(7, 0, 0, 2, 3, members.peers)
    specs = fronts.specs(settings, identity, "/run", lambda: members.peers)
    assert [peers(spec) for spec in specs] == [[2, 1]] * 2
    members.keep(running(THREE))
    assert [peers(spec) for spec in specs] == [[3]] * 2
    assert json.loads(specs[1].settings(3)[0])["index"] == 1
    assert json.loads(specs[0].settings(3)[0])["read_only"] is True
    assert json.loads(specs[0].settings(3)[0])["proxy_failure_wait_ms"] == 4000


def peers(spec: ChildSpec) -> list[int]:
    """The ports that a front is told."""
    return [peer["port"] for peer in json.loads(spec.settings(3)[0])["common"]["peers"]]


@pytest.mark.parametrize("kept", [False, True])
def test_members_with_certificates_are_dialled_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Also those of the proxy's file: later starts need no ``--initial-cluster``."""
    url = "https://127.0.0.1:1"
    settings = built(
        tmp_path, "--proxy=on", "--peer-auto-tls", *[f"--initial-cluster=h={url}"] * (not kept),
        f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}")
    if kept:
        kind.write(settings.data_dir, [url])
    dialled: list[PeerTls | None] = []

    def ask(*told: object, **_: object) -> Running:
        dialled.append(told[2])
        return running(url)

    monkeypatch.setattr("tools.muster.proxy_mode.found.asked", ask)
    monkeypatch.setattr(fronts, "run", lambda config, *_: dialled.append(config.peer_tls) or 0)
    monkeypatch.setattr(proxy.os, "umask", lambda mask: 0)
    assert proxy.run(settings, LOG) == 0
    assert dialled[0] == dialled[1]
    assert dialled[0] is not None
    assert dialled[0].cert_file.startswith(str(tmp_path))


# -- before it knows a member


def asked(port: int, method: str, path: str) -> tuple[int, str | None, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, b"value=1" if method == "PUT" else None)
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type"), answer.read()


@pytest.mark.parametrize(("read_only", "host"), [(False, "127.0.0.1"), (True, "[::]")])
def test_clients_are_told_that_no_member_is_known(read_only: bool, host: str) -> None:
    (port,) = free_ports(1)
    url = parse_url(f"http://{host}:{port}")
    nobody = (503, "application/json", b'{"message":"httpproxy: zero endpoints currently available"}')
    with refusing([url], read_only):
        for path in ("/v2/keys/a?wait=true", "/version", "/v2/members"):
            assert asked(port, "GET", path) == nobody
        assert asked(port, "GET", "/v2/config/local/proxy") == (
            200, "text/plain; charset=utf-8", b'{"endpoints":[]}\n')  # fmt: skip
        status, content_type, figures = asked(port, "GET", "/metrics")
        assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"\nprocess_resident_memory_bytes " in figures
        assert asked(port, "PUT", "/v2/keys/a") == ((501, None, b"") if read_only else nobody)
        refused = (405, "text/plain; charset=utf-8", b"Method Not Allowed\n")
        assert asked(port, "PUT", "/v2/config/local/proxy") == ((501, None, b"") if read_only else refused)
        assert asked(port, "HEAD", "/metrics")[::2] == (501 if read_only else 200, b"")
        assert asked(port, "HEAD", "/v2/keys/a")[::2] == (501 if read_only else 503, b"")
    with pytest.raises(ConnectionRefusedError):
        asked(port, "GET", "/version")


@pytest.mark.parametrize("cors", [("*",), ("http://a",)])
def test_a_web_page_reads_that_no_member_is_known(cors: tuple[str, ...]) -> None:
    """Its browser took the answer without CORS fields for a refusal."""
    (port,) = free_ports(1)
    with refusing([parse_url(f"http://127.0.0.1:{port}")], False, cors):
        for method, origin, code in (
            ("OPTIONS", "http://a", 200), ("GET", "http://a", 503), ("PUT", "http://b", 503),
        ):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request(method, "/v2/keys/a", headers={"Origin": origin})
                answer = connection.getresponse()
                allowed = "*" if "*" in cors else origin if origin in cors else None
                assert (answer.status, answer.getheader("access-control-allow-origin")) == (code, allowed)


def test_a_proxy_that_knows_no_member_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that systemd starts after it would never come."""
    (port,) = free_ports(1)
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(
        proxy, "notify", lambda state: told.append((state, asked(port, "GET", "/version")[0])))
    members = Members(built(tmp_path), [ONE], LOG, lambda *_: running(ONE))
    proxy._awaited(built(tmp_path, f"--listen-client-urls=http://127.0.0.1:{port}", "--proxy=on"), members)
    assert told == [("READY=1", 503)]


def test_who_says_nothing_takes_no_thread_and_keeps_nobody_waiting() -> None:
    (port,) = free_ports(1)
    with refusing([parse_url(f"http://127.0.0.1:{port}")], False), contextlib.ExitStack() as silent:
        before = threading.active_count()
        for _ in range(50):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)).sendall(b"GET /v")
        assert asked(port, "GET", "/v2/keys/a")[0] == 503
        assert threading.active_count() <= before  # threads of other tests may end meanwhile


def test_a_silent_client_has_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unready, "_PATIENCE_S", 0.1)
    (port,) = free_ports(1)
    with (
        refusing([parse_url(f"http://127.0.0.1:{port}")], False),
        socket.create_connection(("127.0.0.1", port), timeout=60) as silent,
    ):
        assert silent.recv(100) == b""


def test_there_are_only_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unready, "_MOST_AT_ONCE", 2)
    monkeypatch.setattr(unready, "_PATIENCE_S", 3600)
    (port,) = free_ports(1)
    with refusing([parse_url(f"http://127.0.0.1:{port}")], False), contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as third, contextlib.suppress(OSError):
            assert third.recv(100) == b""
        held.close()
        until(lambda: answered(port))


def answered(port: int) -> bool:
    try:
        return asked(port, "GET", "/v2/keys/a")[0] == 503
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("sent", [
    b"\r\n\r\n", b"GET /\r\n\r\n", b"\xff\xff x\r\n\r\n",
    b"PUT /v2/keys/a HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
], ids=["nothing", "no version", "no words", "a length of very many digits"])  # fmt: skip
def test_what_is_no_request_is_a_bad_one(sent: bytes) -> None:
    (port,) = free_ports(1)
    with (
        refusing([parse_url(f"http://127.0.0.1:{port}")], False),
        socket.create_connection(("127.0.0.1", port), timeout=60) as client,
    ):
        client.sendall(sent)
        with client.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 400 Bad Request\r\n"


def test_a_port_that_is_taken_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = parse_url(f"http://127.0.0.1:{taken.getsockname()[1]}")
        refused = refusing([url], False)
        with refused:
            pass
