"""What a call says of its attempts, and who waits for which."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client import sync, v2
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.services import leading
from muster_client.sync import client as sync_client
from muster_client.wire import calls, engine

from tests.unit.library.scripted import Code, say_nothing, scripted, until

Context = grpc.ServicerContext


def test_what_takes_more_than_an_attempt_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ATTEMPT_S", 0.2)

    def slow(request: pb.RangeRequest, context: Context) -> pb.RangeResponse:
        time.sleep(0.6)
        return pb.RangeResponse(count=1)

    with scripted({"KV/Range": slow}) as address, sync.Client(address, timeout=8) as client:
        assert client.get("a") is None


def test_a_closed_client_fails_its_calls() -> None:
    """With an error, not as if their tasks were cancelled; what was sent may be done."""
    under_way: list[Any] = []

    def silent(request: Any, context: Context) -> Any:
        under_way.append(request)
        say_nothing(context)

    async def main() -> None:
        client = m.Client(address)
        reading, writing = asyncio.create_task(client.get("a")), asyncio.create_task(client.put("a", "1"))
        await until(lambda: len(under_way) == 2)
        await client.close()
        for task in (reading, writing):
            with pytest.raises(m.MusterError, match="closed") as met:
                await asyncio.wait_for(task, 3)
            assert met.value.maybe_done
        with pytest.raises(m.MusterError, match="closed") as met:
            await client.get("a")
        assert not met.value.maybe_done

    with scripted({"KV/Range": silent, "KV/Put": silent}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("named", [False, True])
def test_a_host_that_hashes_for_long_is_asked_once(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt ended before it was done, and another one made it begin anew."""
    monkeypatch.setattr(calls, "_ATTEMPT_S", 0.2)
    asked: list[pb.HashKVRequest] = []

    def hash_kv(request: pb.HashKVRequest, context: Context) -> pb.HashKVResponse:
        asked.append(request)
        time.sleep(0.7)
        return pb.HashKVResponse(hash=5)

    async def main() -> None:
        async with m.Client([address, "127.0.0.1:1"] if named else address, timeout=0.1) as client:
            found = await client.maintenance.hash_kv(address if named else "", timeout=10)
            assert (found.hash, len(asked)) == (5, 1)

    with scripted({"Maintenance/HashKV": hash_kv}) as address:
        asyncio.run(main())


def test_a_write_may_have_all_the_time() -> None:
    """Its timeout could not be written into a header: OverflowError."""
    async def main() -> None:
        async with m.Client(address) as client:
            assert (await client.put("a", "1", timeout=math.inf)).revision == 7

    put = pb.PutResponse(header=pb.ResponseHeader(revision=7))
    with scripted({"KV/Put": lambda request, context: put}) as address:
        asyncio.run(main())


def test_a_closed_client_fails_those_who_wait_for_its_login() -> None:
    logins: list[int] = []

    def silent(request: pb.AuthenticateRequest, context: Context) -> Any:
        logins.append(1)
        say_nothing(context)

    async def main() -> None:
        client = m.Client(address, user="u", password="p")
        tasks = [asyncio.create_task(client.get("a")) for _ in range(3)]
        await until(lambda: logins)
        await client.close()
        for task in tasks:
            with pytest.raises(m.MusterError, match="closed"):
                await asyncio.wait_for(task, 3)
        assert len(logins) == 1

    with scripted({"Auth/Authenticate": silent}) as address:
        asyncio.run(main())


def test_a_closed_client_fails_those_who_wait_for_a_connection() -> None:
    async def main() -> None:
        client = m.Client("127.0.0.1:1")
        task = asyncio.create_task(client.get("a"))
        await until(lambda: client._caller.connections._opened)
        await client.close()
        with pytest.raises(m.MusterError, match="closed"):
            await asyncio.wait_for(task, 3)

    asyncio.run(main())


def test_a_login_has_more_time_than_the_caller_that_begins_it() -> None:
    logins: list[int] = []
    goes_on = threading.Event()

    def login(request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        logins.append(1)
        goes_on.wait(10)
        return pb.AuthenticateResponse(token="t.1")

    def read(request: pb.RangeRequest, context: Context) -> pb.RangeResponse:
        return pb.RangeResponse()

    async def main() -> None:
        async with m.Client(address, user="u", password="p") as client:
            hasty = asyncio.create_task(client.get("a", timeout=0.2))
            patient = asyncio.create_task(client.get("a"))
            began = time.monotonic()
            with pytest.raises(m.DeadlineExceeded):
                await hasty
            assert time.monotonic() - began < 2
            goes_on.set()
            assert await asyncio.wait_for(patient, 5) is None
            assert len(logins) == 1

    with scripted({"Auth/Authenticate": login, "KV/Range": read}) as address:
        asyncio.run(main())


def test_a_failed_login_does_not_hide_an_attempt_before_it() -> None:
    attempts: list[int] = []
    logins: list[int] = []

    def write(request: pb.TxnRequest, context: Context) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        context.abort(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")

    def login(request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        logins.append(1)
        if len(logins) > 1:
            context.abort(
                Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")
        return pb.AuthenticateResponse(token="t.1")

    async def main() -> None:
        async with m.Client(address, user="u", password="p") as client:
            with pytest.raises(m.AuthenticationFailed) as met:
                await client.txn(m.when().then(m.put("a", "1")), repeatable=True)
            assert met.value.maybe_done
            with pytest.raises(m.AuthenticationFailed) as met:
                await client.get("a")
            assert not met.value.maybe_done

    with scripted({"Auth/Authenticate": login, "KV/Txn": write}) as address:
        asyncio.run(main())


def test_an_error_is_told_again_whole() -> None:
    for error in (m.Unreachable({"a": "b"}), m.DeadlineExceeded("late"), m.Compacted("gone", 7),
                  m.Unavailable(Code.UNAVAILABLE, "down")):  # fmt: skip
        again = m.errors.told_again(error, maybe_done=True)
        assert (type(again), str(again), again.maybe_done) == (type(error), str(error), True)
        assert vars(again) == vars(error) | {"maybe_done": True}
        assert not error.maybe_done


@pytest.mark.parametrize("error", [
    m.Unavailable(Code.UNAVAILABLE, "away", maybe_done=True), m.Unreachable({"a:1": "refused"}),
    m.DeadlineExceeded("late"), v2.KeyNotFound(100, "Key not found", "/a", 7)])
def test_an_error_comes_whole_from_another_process(error: m.MusterError) -> None:
    error.endpoint = "a:1"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (str(again), again.__dict__) == (str(error), error.__dict__)


def test_pages_go_on_where_an_endpoint_lags() -> None:
    """The first page says as of which revision; an endpoint that has not come to it may serve the next."""
    asked: list[pb.RangeRequest] = []

    def read(request: pb.RangeRequest, context: Context) -> pb.RangeResponse:
        asked.append(request)
        if request.revision and request.serializable:
            context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
        return pb.RangeResponse(
            header=pb.ResponseHeader(revision=7), kvs=[kv_pb2.KeyValue(key=b"a%d" % len(asked))], count=2,
            more=not request.revision)

    async def main() -> None:
        async with m.Client(address) as client:
            pages = client.range(m.prefix("a"), page=1, serializable=True)
            assert [kv.key for kv in await pages.all()] == [b"a1", b"a3"]
            assert [request.revision for request in asked] == [0, 7, 7]

    with scripted({"KV/Range": read}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("ends", ["by time", "by its owner"])
def test_only_silence_makes_an_endpoint_suspect(ends: str) -> None:
    asked: list[int] = []

    def keep(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[Any]:
        asked.append(next(requests).ID)
        say_nothing(context)
        yield from ()

    def grant(request: pb.LeaseGrantRequest, context: Context) -> pb.LeaseGrantResponse:
        return pb.LeaseGrantResponse(ID=request.ID, TTL=2)

    def revoke(request: pb.LeaseRevokeRequest, context: Context) -> pb.LeaseRevokeResponse:
        return pb.LeaseRevokeResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            lease = await client.lease(2)
            [connection] = client._caller.connections._opened
            await until(lambda: asked)
            if ends == "by time":
                await until(lambda: connection.suspect_until)
                assert lease.left_s() > 2 / 6, "there is time for another endpoint"
                await until(lambda: len(asked) > 1)
            else:
                await lease.revoke()
                assert not connection.suspect_until

    with scripted({
        "Lease/LeaseGrant": grant, "Lease/LeaseRevoke": revoke, "Lease/LeaseKeepAlive": keep,
    }) as address:
        asyncio.run(main())


def test_a_login_whose_own_time_is_over_is_named() -> None:
    """Whichever ends first, the login's time or that of the call that waits for it."""

    def login(request: pb.AuthenticateRequest, context: Context) -> Any:
        say_nothing(context)

    async def main() -> None:
        async with m.Client(address, user="u", password="p", timeout=0.2) as client:
            with pytest.raises(m.DeadlineExceeded, match="no answer to the login in time") as met:
                await client.get("a", timeout=30)
            assert not met.value.maybe_done

    with scripted({"Auth/Authenticate": login}) as address:
        asyncio.run(main())


def test_a_compaction_that_was_refused_while_it_waited_is_done(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def compact(request: pb.CompactionRequest, context: Context) -> Any:
        if not refused:
            refused.append(1)
            context.abort(Code.UNKNOWN, "etcdserver: too many requests")
        context.abort(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")

    def full(request: pb.CompactionRequest, context: Context) -> Any:
        context.abort(Code.UNKNOWN, "etcdserver: too many requests")

    async def main() -> None:
        async with m.Client(address) as client:
            await client.compact(5, physical=True)
            with pytest.raises(m.Compacted):
                await client.compact(5, physical=True)
            refused.clear()
            with pytest.raises(m.Compacted):  # what does not wait for the space was not done
                await client.compact(5)
        # the deadline would come first: what is refused again is told, however long its two attempts took
        monkeypatch.setattr(calls, "pause_s", lambda attempt: 0.0 if attempt == 1 else 3600.0)
        async with m.Client(other) as client:
            for physical in (False, True):
                with pytest.raises(m.ServerError, match="too many") as met:
                    await client.compact(5, physical=physical)
                assert met.value.maybe_done is physical

    with scripted({"KV/Compact": compact}) as address, scripted({"KV/Compact": full}) as other:
        asyncio.run(main())


def test_a_call_that_cannot_be_sent_holds_up_no_other() -> None:
    class Heavy:
        """Sends headers that no frame takes, with every second call."""

        def __init__(self) -> None:
            self.begun = 0
            self.headers: tuple[tuple[str, str], ...] = ()

        def begin(self, method: str) -> Heavy:
            self.begun += 1
            self.headers = (("baggage", "x" * 20_000),) if self.begun % 2 else ()
            return self

        def end(self, call: object) -> None:
            """Nothing is to be told."""

    async def main() -> None:
        async with m.Client(address, observer=Heavy()) as client:
            for _ in range(3):  # the first by a task, as there is no connection yet
                told = await asyncio.gather(*(client.get("a") for _ in range(6)), return_exceptions=True)
                assert [type(one) for one in told] == [ValueError, type(None)] * 3

    with scripted({"KV/Range": lambda request, context: pb.RangeResponse()}) as address:
        asyncio.run(main())


def test_a_call_that_cannot_be_sent_is_cancelled() -> None:
    """Before its caller is told."""

    def unary(*_: Any) -> int:
        raise ValueError("what no frame takes")

    connection = SimpleNamespace(name="a", line=SimpleNamespace(unary=unary))
    caller: Any = SimpleNamespace(quick=lambda how: (connection, ""))
    how: Any = SimpleNamespace(begins=lambda connection, token: (), timeout_s=lambda: 1.0)
    told, told_of, failures = Future[pb.RangeResponse](), threading.Event(), list[object]()
    engine.loop().set_exception_handler(lambda loop, context: failures.append(context))
    quick = calls._Quick(
        caller, calls.Method("KV/Range", pb.RangeResponse), b"", how, told, lambda step: told_of.set())
    assert told_of.wait(5)
    quick.cancel()
    try:
        engine.submit(asyncio.sleep(0)).result(5)
    finally:
        engine.loop().set_exception_handler(None)
    assert not failures


def test_an_error_names_the_endpoint_of_its_attempt() -> None:
    def put(request: pb.PutRequest, context: Context) -> Any:
        context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied")

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(m.PermissionDenied) as met:
                await client.put("a", "1")
            assert met.value.endpoint == address
        with pytest.raises(m.MusterError, match="closed") as closed:
            await client.put("a", "1")
        assert closed.value.endpoint == ""

    with scripted({"KV/Put": put}) as address:
        asyncio.run(main())


FAILING = pytest.mark.parametrize(("code", "text", "ends"), [
    (Code.PERMISSION_DENIED, "etcdserver: permission denied", True),
    (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", True),
    (Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password", True),
    (Code.UNAVAILABLE, "etcdserver: no leader", False),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", False),
    (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", False),
])  # fmt: skip


@FAILING
def test_a_campaign_that_nobody_may_begin_ends_what_is_done_while_leading(
    code: grpc.StatusCode, text: str, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(leading, "_AGAIN_S", 0.01)

    def grant(request: Any, context: grpc.ServicerContext) -> Any:
        asked.append(1)
        context.abort(code, text)

    async def work(leadership: m.Leadership) -> None:
        raise AssertionError("it does not lead")

    async def main() -> None:
        async with m.Client(address, timeout=0.2) as client:
            with pytest.raises(m.ServerError if ends else TimeoutError, match=text if ends else None):
                await asyncio.wait_for(client.while_leading("l", work), 2)
            assert ends or len(asked) > 1

    with scripted({"Lease/LeaseGrant": grant}) as address:
        asyncio.run(main())


@FAILING
def test_it_ends_in_the_other_form_too(
    code: grpc.StatusCode, text: str, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(sync_client, "_AGAIN_S", 0.01)

    def grant(request: Any, context: grpc.ServicerContext) -> Any:
        asked.append(1)
        if len(asked) == 3:
            context.abort(Code.PERMISSION_DENIED, "etcdserver: permission denied: enough")
        context.abort(code, text)

    with (
        scripted({"Lease/LeaseGrant": grant}) as address, sync.Client(address, timeout=0.2) as client,
        pytest.raises(m.ServerError, match=text if ends else "enough"),
    ):
        client.while_leading("l", lambda leadership: None)
    assert (len(asked) == 1) == ends


@pytest.mark.parametrize("reads", [True, False])
def test_a_transaction_that_reads_is_not_cancelled_at_the_server(reads: bool) -> None:
    """An old etcd would end by it. Others are: from a loop of the caller's, and from the engine's."""
    begun, ended, goes_on = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def answer(request: pb.TxnRequest, context: Context) -> pb.TxnResponse:
        context.add_callback(lambda: goes_on.is_set() or ended.release())
        begun.release()
        goes_on.wait(10)
        return pb.TxnResponse()

    async def main() -> None:
        async with m.Client(address) as client:
            txn = m.when().then(m.get("a") if reads else m.put("a", "b"))
            for run in (asyncio.create_task, engine.submit):
                asking: Any = run(client.txn(txn))
                await until(lambda: begun.acquire(blocking=False))
                asking.cancel()
                if reads:
                    await asyncio.sleep(0.2)
                    assert not ended.acquire(blocking=False)
                else:
                    await until(lambda: ended.acquire(blocking=False))
            goes_on.set()
            line = client._caller.connections._opened[0].line
            await until(lambda: line is not None and not line._calls)

    with scripted({"KV/Txn": answer}) as address:
        asyncio.run(main())
