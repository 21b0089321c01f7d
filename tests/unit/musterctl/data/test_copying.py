"""Two clusters: each has its own credentials. And what becomes of leases that end at the source of ``import``
while their keys are copied, and later."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from muster_client.pb import kv_pb2, rpc_pb2

from tools.client.channels import Config
from tools.musterctl import cli
from tools.musterctl.commands.data import copying
from tools.musterctl.commands.data.copied_leases import Leases
from tools.musterctl.commands.data.copier import Copier

GONE, ALIVE, ENDING = 1, 2, 3


class Source:
    """Has keys on leases; the endpoint that lists leases is behind."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.ttl_s = {ALIVE: 60, ENDING: 0}  # what is left of each: the last one's is less than a second

    def unary(self, method: str, request: Any, response: Any, *_: Any) -> Any:
        if method == "Lease/LeaseTimeToLive":
            self.asked.append(request.ID)
            left_s = self.ttl_s.get(request.ID, -1)
            return rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=left_s, grantedTTL=max(left_s, 30))
        if method == "Lease/LeaseLeases":
            return rpc_pb2.LeaseLeasesResponse()
        kvs = [kv_pb2.KeyValue(key=b"%d" % lease, value=b"v", lease=lease) for lease in range(4)]
        kvs += [kv_pb2.KeyValue(key=b"more", value=b"v", lease=GONE)] * 5
        return rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(revision=7), kvs=kvs)

    def start(self, method: str, request: Any, response: Any, timeout_s: float) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self.unary(method, request, response))
        return future


class Target:
    """Renews none."""

    def __init__(self) -> None:
        self.puts: list[tuple[bytes, int]] = []
        self.granted: list[int] = []
        self.begun: list[Coroutine[Any, Any, None]] = []
        self.renewed: list[int] = []
        self.gone: Callable[[int], None]
        self.unanswered: set[str] = set()

    def unary(self, method: str, request: Any, response: Any, *_: Any) -> None:
        if method == "Lease/LeaseGrant":
            self.granted.append(request.ID)
        else:
            self.puts += [(op.request_put.key, op.request_put.lease) for op in request.success]

    def begin(self, step: Coroutine[Any, Any, None]) -> None:
        self.begun.append(step)

    def renewing(self, gone: Callable[[int], None]) -> Any:
        self.gone = gone
        return SimpleNamespace(run=self._nothing, add=self._add, remove=self.renewed.remove)

    async def _nothing(self) -> None: ...

    async def _add(self, lease: int) -> None:
        self.renewed.append(lease)


def test_a_key_that_one_revision_deletes_and_puts_again_is_copied_as_it_ends() -> None:
    """As "delete all, then put" does. A cluster refuses a transaction that changes a key twice."""
    gone = [kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv_pb2.KeyValue(key=key, mod_revision=7))
            for key in (b"a", b"b")]
    new = kv_pb2.KeyValue(key=b"a", value=b"new", create_revision=7, mod_revision=7, version=1)
    response = rpc_pb2.WatchResponse(events=[*gone, kv_pb2.Event(type=kv_pb2.Event.PUT, kv=new)])
    source: Any = SimpleNamespace(
        raw=lambda: SimpleNamespace(watch=lambda *_, **__: None), again=None,
        each=lambda *_, **__: [response])
    sent: list[rpc_pb2.TxnRequest] = []
    target: Any = SimpleNamespace(unary=lambda method, request, *_: sent.append(request), unanswered=set())
    copier = Copier(source, target, (b"\0", b"\0"), 128, lambda key: key)
    copier.follow()
    (request,) = sent
    changed = [op.request_put.key or op.request_delete_range.key for op in request.success]
    assert sorted(changed) == [b"a", b"b"]
    assert [op.request_put.value for op in request.success if op.request_put.key] == [b"new"]
    assert (copier.revision, copier.copied) == (7, 2)


def test_a_key_whose_lease_has_ended_since_it_was_read_is_not_copied() -> None:
    """Nothing would ever delete it."""
    source, target = Source(), Target()
    clients: Any = (source, target)
    copier = Copier(*clients, (b"\0", b"\0"), 128, lambda key: key, Leases(*clients))
    copier.base()
    assert target.puts == [(b"0", 0), (b"2", ALIVE), (b"3", ENDING)]
    assert (target.granted, copier.copied) == ([ALIVE, ENDING], 3)
    assert sorted(source.asked) == [GONE, ALIVE, ENDING], "not for each of the keys"
    for step in target.begun:
        step.close()


def test_a_key_whose_lease_ends_while_keys_before_it_are_copied_is_left_out() -> None:
    """It was put without a lease, for ever."""
    source, target = Source(), Target()
    clients: Any = (source, target)
    leases = Leases(*clients)
    copier = Copier(*clients, (b"\0", b"\0"), 1, lambda key: key, leases)
    put = target.unary

    def ends(method: str, request: Any, *rest: Any) -> None:
        put(method, request, *rest)
        if method == "KV/Txn" and request.success[0].request_put.key == b"0":
            del source.ttl_s[ENDING]
            asyncio.run(leases._forget_gone())

    target.unary = ends  # type: ignore[method-assign]
    assert leases.there(ENDING) == ENDING
    run_all(target)
    copier.base()
    assert target.puts == [(b"0", 0), (b"2", ALIVE)]
    assert copier.copied == 2
    run_all(target)


def test_a_lease_that_is_gone_at_the_source_is_not_renewed_at_the_target() -> None:
    """They come and go: the target would have more and more. One that an endpoint does not know yet stays."""
    source, target = Source(), Target()
    clients: Any = (source, target)
    leases = Leases(*clients)
    assert [leases.there(lease) for lease in (GONE, ALIVE, ENDING)] == [0, ALIVE, ENDING]
    run_all(target)
    del source.ttl_s[ENDING]
    asyncio.run(leases._forget_gone())
    assert (leases.granted, target.renewed) == (1, [ALIVE])
    source.ttl_s[ENDING] = 60
    assert leases.there(ENDING) == ENDING
    target.gone(ALIVE)  # at the target
    assert leases.there(ALIVE) == ALIVE
    run_all(target)
    assert target.granted == [ALIVE, ENDING, ENDING, ALIVE]
    assert target.renewed == [ALIVE, ENDING, ALIVE]


def run_all(target: Target) -> None:
    """What is begun, but for what never ends."""
    for step in target.begun:
        if step.__qualname__.endswith("_forget"):
            step.close()
        else:
            asyncio.run(step)
    target.begun.clear()


def test_what_is_copied_is_told_by_events_and_by_progress_alone() -> None:
    """An etcd sends the past in parts, each at the store's revision."""
    put = [kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", value=b"v", mod_revision=n)) for n in (9, 10)]
    told = [rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(revision=2012), events=put),
            rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(revision=2013))]
    raw = SimpleNamespace(watch=lambda *_, **__: told)
    source: Any = SimpleNamespace(raw=lambda: raw, each=lambda watch, meanwhile: iter(watch), again=None)
    target: Any = Target()
    copier = Copier(source, target, (b"\0", b"\0"), 128, lambda key: key)
    copied: list[int] = []
    copier.on_progress = lambda: copied.append(copier.revision)
    copier.follow()
    assert copied == [10, 2013]
    assert target.puts == [(b"k", 0)] * 2


class Enough(Exception):
    """The other cluster's client would connect now."""


def other_of(line: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """By what the cluster is asked that the global flags are not about."""
    found: list[Config] = []

    def client(config: Config, endpoints: tuple[str, ...]) -> None:
        found.append(config)
        raise Enough

    monkeypatch.setattr(copying, "Client", client)
    with pytest.raises(Enough):
        cli.run(line.split())
    return found[0]


@pytest.mark.parametrize("command", ["make-mirror https://dest:2379", "import --from-etcd https://dest:2379"])
def test_one_clusters_credentials_are_not_told_the_other(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a server taken on trust because the other one is."""
    monkeypatch.setattr("tools.musterctl.discovery.endpoints_of", lambda *_, **__: ["https://own:2379"])
    own = "--insecure-skip-tls-verify --discovery-srv example.com --insecure-discovery=false"
    for credentials in ("--auth-jwt-token SECRET", "--user u:p"):
        other = other_of(f"{credentials} {own} {command}", monkeypatch)
        assert (other.token, other.user, other.password) == ("", "", "")
        assert (other.skip_verify, other.server_name) == (False, "")
        assert other.endpoints == ("https://dest:2379",)


@pytest.mark.parametrize(("flags", "found", "asked"), [
    ("--dest-user bob", ("bob", "typed"), "Destination Password: \n"),
    ("--dest-user a:b", ("a", "b"), ""),
    ("--dest-user a:", ("", ""), ""),  # no login
    ("--dest-user a:b --dest-password p", ("a:b", "p"), ""),
])  # fmt: skip
def test_a_destinations_user_is_read_as_etcdctl_reads_it(
    flags: str, found: tuple[str, str], asked: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"typed\n")))
    other = other_of(f"make-mirror dest:2379 {flags}", monkeypatch)
    assert (other.user, other.password) == found
    assert capsys.readouterr().out == asked


@pytest.mark.parametrize(("rev", "steps"), [
    ("-5", ["base", "follow 0"]), ("0", ["base", "follow 0"]), ("1", ["base", "follow 0"]),
    ("2", ["follow 1"])])
def test_a_mirror_of_the_first_revision_begins_with_all_keys(
    rev: str, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source may have compacted it."""
    done: list[str] = []
    monkeypatch.setattr(Copier, "base", lambda copier, since=0: done.append("base"))
    monkeypatch.setattr(Copier, "follow", lambda copier: done.append(f"follow {copier.revision}"))
    assert cli.run(["make-mirror", "127.0.0.1:1", f"--rev={rev}", "--endpoints=127.0.0.1:1"]) == 0
    assert done == steps


@pytest.mark.parametrize(("flags", "mirrored"), [
    ((), b"app/key"), (("--no-dest-prefix",), b"key"), (("--dest-prefix=b/",), b"b/key")])
def test_a_mirror_that_goes_on_keeps_the_prefix(
    flags: tuple[str, ...], mirrored: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcdctl drops it, to which issue 22421 of etcd objects: the mirror's own key stays as it was."""
    names: list[bytes] = []
    monkeypatch.setattr(Copier, "follow", lambda copier: names.append(copier._rename(b"app/key")))
    command = ["make-mirror", "127.0.0.1:1", "--endpoints=127.0.0.1:1", "--prefix=app/", "--rev=3", *flags]
    assert cli.run(command) == 0
    assert names == [mirrored]
