"""``import`` and ``make-mirror`` go on: over leases that end at the target, hosts that go away, hosts that
stood still and do old requests. And from where an earlier run ended."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from types import MappingProxyType, SimpleNamespace
from typing import Any

import grpc
import pytest
from muster_client.pb import kv_pb2, rpc_pb2
from muster_client.wire import engine

from tests.unit.library.scripted import scripted
from tools.client.channels import Config
from tools.musterctl import cli
from tools.musterctl.client import Client
from tools.musterctl.command import Exit
from tools.musterctl.commands.data import copying
from tools.musterctl.commands.data.copying import Copier, Leases

LEASE, EVERYTHING = 7, (b"\0", b"\0")
Code = grpc.StatusCode


class Ending(Client):
    """What it runs beside all else ends with it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._begun: list[Future[None]] = []

    def begin(self, step: Coroutine[Any, Any, None]) -> None:
        self._begun.append(engine.submit(step))

    def close(self) -> None:
        for one in self._begun:
            one.cancel()
        super().close()


class Store:
    """Keys and leases behind some endpoints. Tests change what it answers."""

    def __init__(self, **values: bytes) -> None:
        self.revision = 10
        self.kvs = {key.encode(): kv_pb2.KeyValue(key=key.encode(), value=value)
                    for key, value in values.items()}
        self.leases: set[int] = set()
        self.granted: list[int] = []
        self.told: queue.Queue[rpc_pb2.WatchResponse] = queue.Queue()
        self.watched_from = 0
        self.compacted = 0

    @contextlib.contextmanager
    def served(self, own: Mapping[str, Callable[..., Any]] = MappingProxyType({})) -> Iterator[str]:
        """By an endpoint. ``own``: what it does itself."""
        ours: dict[str, Callable[..., Any]] = {
            "KV/Range": self._range, "KV/Txn": self.txn, "Lease/LeaseGrant": self.grant,
            "Lease/LeaseTimeToLive": self.time_to_live, "Lease/LeaseLeases": self._listed,
            "Lease/LeaseKeepAlive": self._renewed, "Watch/Watch": self._watched}
        with scripted(ours | dict(own)) as address:
            yield address

    def values(self) -> dict[bytes, bytes]:
        return {key: kv.value for key, kv in self.kvs.items()}

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """By a client of the source."""
        self.revision += 1
        self.kvs[key] = kv_pb2.KeyValue(key=key, value=value, lease=lease, mod_revision=self.revision)
        self._tell(kv_pb2.Event(type=kv_pb2.Event.PUT, kv=self.kvs[key]))

    def delete(self, key: bytes) -> None:
        self.revision += 1
        del self.kvs[key]
        gone = kv_pb2.KeyValue(key=key, mod_revision=self.revision)
        self._tell(kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=gone))

    def _tell(self, event: kv_pb2.Event) -> None:
        header = rpc_pb2.ResponseHeader(revision=self.revision)
        self.told.put(rpc_pb2.WatchResponse(header=header, events=[event]))

    def end_lease(self) -> None:
        self.leases.discard(LEASE)
        self.kvs = {key: kv for key, kv in self.kvs.items() if kv.lease != LEASE}

    def txn(self, request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> rpc_pb2.TxnResponse:
        if {op.request_put.lease for op in request.success} - {0} - self.leases:
            context.abort(Code.NOT_FOUND, "etcdserver: requested lease not found")
        for op in request.success:
            if op.HasField("request_put"):
                put = op.request_put
                self.kvs[put.key] = kv_pb2.KeyValue(key=put.key, value=put.value, lease=put.lease)
            else:
                self.kvs.pop(op.request_delete_range.key, None)
        return rpc_pb2.TxnResponse(succeeded=True)

    def grant(self, request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        if request.ID in self.leases:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        self.granted.append(request.ID)
        self.leases.add(request.ID)
        return rpc_pb2.LeaseGrantResponse(ID=request.ID, TTL=request.TTL)

    def _range(self, request: rpc_pb2.RangeRequest, context: Any) -> rpc_pb2.RangeResponse:
        if 0 < request.revision < self.compacted:
            context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
        if request.revision > self.revision:
            context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
        found = [kv for key, kv in sorted(self.kvs.items()) if request.range_end or key == request.key]
        return rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(revision=self.revision), kvs=found)

    def time_to_live(self, request: Any, context: Any) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.ID not in self.leases:
            return rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1)
        keys = [kv.key for kv in self.kvs.values() if kv.lease == request.ID and request.keys]
        return rpc_pb2.LeaseTimeToLiveResponse(ID=request.ID, TTL=60, grantedTTL=60, keys=keys)

    def _listed(self, request: Any, context: Any) -> rpc_pb2.LeaseLeasesResponse:
        return rpc_pb2.LeaseLeasesResponse(leases=[rpc_pb2.LeaseStatus(ID=lease) for lease in self.leases])

    def _renewed(self, requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
        for request in requests:
            ttl_s = 1 if request.ID in self.leases else 0
            yield rpc_pb2.LeaseKeepAliveResponse(ID=request.ID, TTL=ttl_s)

    def _watched(self, requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.WatchResponse]:
        self.watched_from = next(requests).create_request.start_revision
        if self.watched_from < self.compacted:
            yield rpc_pb2.WatchResponse(created=True, canceled=True, compact_revision=self.compacted)
            return
        yield rpc_pb2.WatchResponse(created=True)
        while not (told := self.told.get()).canceled:
            yield told
        yield told


@contextlib.contextmanager
def following(
    source: Store, from_: str, *to: str, imports: bool = True, since: int = 0
) -> Iterator[Copier]:
    """A copy that goes on beside what a test does, and must have met no error by its end."""
    origin, target = (Ending(Config(names), names) for names in ((from_,), to))
    leases = Leases(origin, target) if imports else None
    copier = Copier(origin, target, EVERYTHING, 128, lambda key: key, leases)
    ended: list[Exception] = []

    def run() -> None:
        try:
            copier.base(since)
            copier.follow()
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        until(lambda: source.watched_from or ended)
        yield copier
    finally:
        source.told.put(rpc_pb2.WatchResponse(canceled=True, compact_revision=1))
        thread.join(10)
        target.close()
        origin.close()
    assert [type(error) for error in ended] == [Exit], ended


def until(holds: Callable[[], object]) -> None:
    """Ten seconds at most."""
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    assert holds()


def renewed(requests: Iterator[Any], context: Any) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
    """Whatever is asked for; transactions tell of ends."""
    for request in requests:
        yield rpc_pb2.LeaseKeepAliveResponse(ID=request.ID, TTL=60)


def leased(**values: bytes) -> Store:
    """A source whose keys are on one lease."""
    source = Store()
    source.leases.add(LEASE)
    for key, value in values.items():
        source.put(key.encode(), value, LEASE)
    source.told = queue.Queue()
    return source


def test_keys_of_a_lease_that_ends_at_the_target_alone_come_back() -> None:
    """Their clients put them once, and renew the lease at the source."""
    source, target = leased(a=b"1", b=b"2"), Store(other=b"x")
    with source.served() as from_, target.served() as to, following(source, from_, to) as copier:
        assert set(target.kvs) == {b"a", b"b", b"other"}
        target.end_lease()
        until(lambda: set(target.kvs) == {b"a", b"b", b"other"})
        assert {target.kvs[key].lease for key in (b"a", b"b")} == {LEASE}
        until(lambda: copier.is_whole)


def test_keys_outside_the_prefix_do_not_come() -> None:
    source, target = leased(a=b"1", b=b"2"), Store()
    with source.served() as from_, target.served() as to, following(source, from_, to) as copier:
        target.end_lease()
        copier._span = (b"b", b"c")
        until(lambda: b"b" in target.kvs and copier.is_whole)
        assert b"a" not in target.kvs


def test_a_change_with_a_lease_that_has_ended_at_the_target_is_copied() -> None:
    """Before a renewal has told of it."""
    source, target = leased(a=b"1", b=b"2"), Store()
    with (source.served() as from_, target.served({"Lease/LeaseKeepAlive": renewed}) as to,
          following(source, from_, to)):
        target.end_lease()
        source.put(b"a", b"3", LEASE)
        until(lambda: target.values() == {b"a": b"3", b"b": b"2"})
        target.end_lease()
        source.end_lease()  # its keys' deletion is on its way
        source.put(b"c", b"4")
        until(lambda: target.values() == {b"c": b"4"})


def test_a_lease_that_ends_at_the_target_concerns_no_other() -> None:
    """One transaction's other leases are there: their keys are not asked for."""
    source, target = leased(a=b"1", b=b"2"), Store()
    for other in (8, 9):
        source.leases.add(other)
        source.put(b"of%d" % other, b"1", other)
    source.told = queue.Queue()
    asked: list[int] = []
    puts: list[int] = []

    def time_to_live(request: Any, context: Any) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.keys:
            asked.append(request.ID)
        return source.time_to_live(request, context)

    def txn(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> rpc_pb2.TxnResponse:
        puts.append(len(request.success))
        if len(puts) == 1:  # behind the grants
            target.end_lease()
        return target.txn(request, context)

    with (source.served({"Lease/LeaseTimeToLive": time_to_live}) as from_,
          target.served({"KV/Txn": txn, "Lease/LeaseKeepAlive": renewed}) as to,
          following(source, from_, to) as copier):
        assert copier.is_whole
        assert target.values() == {b"a": b"1", b"b": b"2", b"of8": b"1", b"of9": b"1"}
    assert asked == [LEASE]
    assert puts == [4, 4, 2]


@pytest.mark.parametrize("answered", [True, False])
def test_a_lease_granted_again_over_a_host_that_goes_away_has_lost_its_keys(answered: bool) -> None:
    """The second attempt says that it exists, whether the first one or no end has been its reason."""
    source, target = leased(a=b"1"), Store()

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        if not answered:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        answer = target.grant(request, context)
        if len(target.granted) == 2:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return answer

    own = {"Lease/LeaseGrant": grants, "Lease/LeaseKeepAlive": renewed}
    with source.served() as from_, target.served(own) as to:
        origin, client = (Ending(Config((name,)), (name,)) for name in (from_, to))
        leases = Leases(origin, client)
        assert leases.there(LEASE) == LEASE
        target.leases.clear()
        assert leases.again(LEASE) == LEASE
        assert list(leases.ended) == [LEASE] * answered
        client.close()
        origin.close()


def test_keys_of_a_lease_that_has_others_which_the_user_may_not_read_come_back(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd wants permission to read all keys of a lease whose keys are asked for."""
    monkeypatch.setattr(copying, "_PAGE", 1)
    source, target = leased(a=b"1", b=b"2"), Store()
    source.kvs[b"c"] = kv_pb2.KeyValue(key=b"c", value=b"3")
    read: list[rpc_pb2.RangeRequest] = []

    def time_to_live(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseTimeToLiveResponse:
        if request.keys:
            context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied")
        return source.time_to_live(request, context)

    def range_(request: rpc_pb2.RangeRequest, context: Any) -> rpc_pb2.RangeResponse:
        read.append(request)
        found = [kv for key, kv in sorted(source.kvs.items()) if key >= request.key]
        header = rpc_pb2.ResponseHeader(revision=source.revision)
        return rpc_pb2.RangeResponse(header=header, kvs=found[:1], more=len(found) > 1)

    with (source.served({"Lease/LeaseTimeToLive": time_to_live, "KV/Range": range_}) as from_,
          target.served() as to, following(source, from_, to) as copier):
        assert set(target.kvs) == {b"a", b"b", b"c"}
        assert [request.revision for request in read] == [0, 12, 12]
        read.clear()
        target.end_lease()
        until(lambda: set(target.kvs) == {b"a", b"b", b"c"} and copier.is_whole)
        single = [(request.key, request.keys_only) for request in read]
        assert single == [(b"\0", True), (b"a\0", True), (b"b\0", True), (b"a", False), (b"b", False)]


def test_a_lease_whose_end_takes_a_while_is_not_asked_for_without_rest() -> None:
    source, target = leased(a=b"1"), Store()
    ends_at = time.monotonic() + 1
    asked: list[int] = []

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        asked.append(request.ID)
        if time.monotonic() < ends_at:
            context.abort(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
        return target.grant(request, context)

    with (source.served() as from_, target.served({"Lease/LeaseGrant": grants}) as to,
          following(source, from_, to)):
        assert target.values() == {b"a": b"1"}
    assert 2 < len(asked) < 13


def test_a_lease_is_granted_though_a_host_goes_away_meanwhile() -> None:
    """Its ID is known: the second attempt says that it exists."""
    source, target = leased(a=b"1"), Store()

    def grants(request: Any, context: grpc.ServicerContext) -> rpc_pb2.LeaseGrantResponse:
        answer = target.grant(request, context)
        if len(target.granted) == 1:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return answer

    with (source.served() as from_, target.served({"Lease/LeaseGrant": grants}) as to,
          following(source, from_, to)):
        assert target.kvs[b"a"].lease == LEASE
    assert target.granted == [LEASE]


@pytest.mark.parametrize("imports", [True, False])
def test_what_a_host_does_late_is_put_right(imports: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood still, another one did the transaction, and newer ones followed."""
    monkeypatch.setattr(copying, "_LOST_S", 0.0)
    monkeypatch.setattr(copying, "_LATEST_S", 1.0)
    source, target = Store(kept=b"1", gone=b"1"), Store(other=b"x")
    late: list[rpc_pb2.TxnRequest] = []

    def stands_still(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        late.append(request)
        context.abort(Code.UNAVAILABLE, "the connection ended")

    with (source.served() as from_, target.served({"KV/Txn": stands_still}) as first,
          target.served() as second, following(source, from_, first, second, imports=imports) as copier):
        source.put(b"kept", b"2")
        source.delete(b"gone")
        until(lambda: target.values() == {b"kept": b"2", b"other": b"x"})
        assert copier.unsure
        context: Any = None
        target.txn(late[0], context)
        assert target.values() == {b"kept": b"1", b"gone": b"1", b"other": b"x"}
        until(lambda: target.values() == {b"kept": b"2", b"other": b"x"})
        until(lambda: copier.is_whole and not copier.unsure)


@pytest.mark.parametrize("back", [True, False])
def test_a_copy_that_does_not_follow_waits_for_what_a_host_does_late(
    back: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Clients write as soon as it has ended. Where that host stays away, they are told."""
    monkeypatch.setattr(copying, "_LOST_S", 0.0)
    monkeypatch.setattr(copying, "_LATEST_S", 1.0)
    monkeypatch.setattr(copying, "_LIMIT_S", 5.0 if back else 0.0)
    begun: list[Future[None]] = []
    monkeypatch.setattr(Client, "begin", lambda client, step: begun.append(engine.submit(step)))

    async def answers(client: Client, endpoint: str) -> None:
        if not back:
            await asyncio.Event().wait()

    monkeypatch.setattr(Client, "answers", answers)
    source, target = Store(a=b"2"), Store()
    late: list[rpc_pb2.TxnRequest] = []

    def stands_still(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        if not late:
            late.append(request)
            threading.Timer(0.5, lambda: target.kvs.update({b"a": kv_pb2.KeyValue(value=b"1")})).start()
        context.abort(Code.UNAVAILABLE, "the connection ended")

    with (source.served() as from_, target.served({"KV/Txn": stands_still}) as first,
          target.served() as second):
        assert cli.run(["--endpoints", f"{first},{second}", "import", "--from-etcd", from_]) == 0
        for one in begun:
            one.cancel()
    assert target.values() == {b"a": b"2" if back else b"1"}
    said = capfd.readouterr().err
    assert f"import: waits for {first}, which left changes unanswered\n" in said
    assert (f"import: {first} left changes unanswered, and may still do them" in said) is not back


def test_a_later_run_deletes_what_the_source_has_deleted_and_nothing_else() -> None:
    source = Store(a=b"1", b=b"2")
    source.delete(b"a")  # at 11
    target = Store(a=b"1", other=b"x")
    with source.served() as from_, target.served() as to, following(source, from_, to, since=11):
        until(lambda: target.values() == {b"b": b"2", b"other": b"x"})
        assert source.watched_from == 11


def test_a_later_run_from_the_future_begins_with_the_present() -> None:
    source, target = Store(a=b"1"), Store()
    with source.served() as from_, target.served() as to, following(source, from_, to, since=999):
        assert source.watched_from == 11


def test_an_end_by_an_error_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a time limit only a server's own answer is one."""
    monkeypatch.setattr(Client, "begin", lambda client, step: step.close())
    source, target = Store(a=b"1"), Store()

    def full(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        context.abort(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")

    with source.served() as from_, target.served({"KV/Txn": full}) as to:
        assert cli.run(["--endpoints", to, "import", "--from-etcd", from_, "--follow"]) == 1
    said = capfd.readouterr().err
    assert "import: to go on, add --follow --since 11\n" in said
    assert said.endswith("Error: etcdserver: mvcc: database space exceeded\n")


def test_a_later_run_from_what_is_compacted_copies_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The watch would refuse it behind the copy of all keys."""
    source, target = Store(a=b"2"), Store(a=b"1")
    source.compacted = 5
    with source.served() as from_, target.served() as to:
        command = ["--endpoints", to, "import", "--from-etcd", from_, "--follow", "--since"]
        assert cli.run([*command, "4"]) == 1
        said = capfd.readouterr().err
        assert said.endswith("Error: etcdserver: mvcc: required revision has been compacted\n")
        assert "to go on" not in said
        assert cli.run([*command, "-4"]) == 128
        assert target.values() == {b"a": b"1"}
        with following(source, from_, to, since=5):
            assert target.values() == {b"a": b"2"}


def test_a_later_run_follows(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["import", "--from-etcd", "127.0.0.1:1", "--since", "3"]) == 128
    assert "--since needs --follow" in capfd.readouterr().err


def test_an_end_says_what_is_open(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []

    class Ended(Exception):
        """The program."""

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr("os._exit", end)
    client: Any = SimpleNamespace(unanswered=set())
    copier = Copier(client, client, EVERYTHING, 1, lambda key: key)
    copier.revision = 5
    for late, unsure in (([], []), ([], ["b", "a", "b"]), ([[b"k"]], [])):
        copier._late.clear()
        copier._late.extend(late)
        copier.unsure = unsure
        with pytest.raises(Ended):
            copying._end(copier)
    client.unanswered.add("c")  # by what is on its way
    copier.unsure = ["b"]
    with pytest.raises(Ended):
        copying._end(copier)
    open_ = "left changes unanswered, and may still do them: compare the keys once it is back"
    assert capfd.readouterr().err.splitlines() == [
        "import: ended: all is copied up to revision 5",
        f"import: a {open_}", f"import: b {open_}", "import: ended: all is copied up to revision 5",
        "import: ended: keys are missing; to go on, add --follow --since 6",
        f"import: b {open_}", f"import: c {open_}",
        "import: ended: keys are missing; to go on, add --follow --since 6"]
    assert codes == [0, 0, 1, 1]
