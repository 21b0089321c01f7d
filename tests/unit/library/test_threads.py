"""The engine's own thread, and the process's end: nothing waits there for ever."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from muster_client import queueing, sync
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.sync.base import wait
from muster_client.sync.services import in_thread
from muster_client.wire import beside, engine

from tests.unit.library.recipes.test_queues import ITEM
from tests.unit.library.scripted import say_nothing, scripted, watched
from tests.unit.library.test_places import Line, held

OPENED = pb.TxnResponse(succeeded=True, responses=[
    pb.ResponseOp(response_range=pb.RangeResponse(kvs=[kv_pb2.KeyValue(key=b"b/ready", mod_revision=6)])),
    pb.ResponseOp(response_range=pb.RangeResponse())])


def test_a_call_in_the_engine_s_thread_is_refused() -> None:
    """As one in a callback of a lease: it would wait for itself."""
    client = sync.Client("127.0.0.1:1", timeout=0.5)

    async def call() -> None:
        with pytest.raises(RuntimeError, match="another thread"):
            client.get("a")
        with pytest.raises(RuntimeError, match="another thread"):
            client.lock("a").acquire(timeout=1)

    engine.submit(call()).result(5)
    client.close()


def test_calls_that_hang_take_no_thread_from_connections() -> None:
    """They look up names, and read certificates, in threads of the engine's loop."""
    free = threading.Event()
    checks = [in_thread(lambda: free.wait(30), daemon=True) for _ in range(40)]

    async def hang() -> int:
        asked = await asyncio.gather(
            *[asyncio.wait_for(check(), 0.5) for check in checks], return_exceptions=True)
        assert {type(one) for one in asked} == {TimeoutError}
        with pytest.raises(TimeoutError, match="still runs"):
            await checks[0]()
        return await asyncio.wait_for(asyncio.to_thread(int, "5"), 5)

    async def again() -> bool:
        while True:
            with contextlib.suppress(TimeoutError):
                return await checks[0]()
            await asyncio.sleep(0.01)

    assert engine.submit(hang()).result(20) == 5
    free.set()
    assert engine.submit(again()).result(10)


def test_a_call_whose_thread_cannot_start_does_not_run_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    check = in_thread(int)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            asyncio.run(check("5"))
    assert asyncio.run(check("5")) == 5


def test_what_a_call_in_a_thread_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="no number"):
        engine.submit(in_thread(int)("no number")).result(10)


def lead(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
    return pb.RangeResponse(kvs=[kv_pb2.KeyValue(key=b"l/1", value=b"a", create_revision=3)], count=1)


def test_an_interrupt_ends_what_is_observed() -> None:
    main = threading.main_thread().ident
    assert main is not None
    assert main == threading.get_ident()
    with scripted({"KV/Range": lead, "Watch/Watch": watched}) as address, sync.Client(address) as client:
        observed = client.election("l").observe()
        assert next(observed).text == "a"
        timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(observed)
        timer.join()


def test_an_interrupted_step_has_tidied_up_when_its_caller_goes_on() -> None:
    main, tidied = threading.get_ident(), threading.Event()

    async def step() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.2)
            tidied.set()

    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait(step())
    assert tidied.is_set()
    timer.join()


@pytest.mark.parametrize(("step", "answers", "own"), [
    (lambda client: client.lease(60), [], True),
    (lambda client: client.lease(60, id=7), [], False),
    (lambda client: client.keep(7), [], False),
    (lambda client: client.lock("l").acquire(), [held()], True),
    (lambda client: client.lock("l").try_acquire(), [held()], True),
    (lambda client: client.election("l").campaign("a").campaign(), [held()], True),
    (lambda client: client.queue("q").take().__enter__(), [ITEM, held()], True),
    (lambda client: client.register("s", "a").register(), [], True),
    (lambda client: client.double_barrier("b", 1).enter(), [held(), OPENED], True),
])  # fmt: skip
def test_what_an_interrupt_takes_from_its_caller_is_given_up(
    step: Callable[[sync.Client], object], answers: list[pb.TxnResponse], own: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes just as the step ends: nobody would hold it, and its lease would be kept alive."""
    revoked = list[int]()
    result = engine.Told[Any].result

    def revoke(request: pb.LeaseRevokeRequest, context: grpc.ServicerContext) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    def keep_alive(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for asked in requests:
            yield pb.LeaseKeepAliveResponse(ID=asked.ID, TTL=60)

    def interrupted(told: engine.Told[Any]) -> Any:
        result(told)
        monkeypatch.undo()
        raise KeyboardInterrupt

    methods = Line(*answers).methods | {
        "Lease/LeaseRevoke": revoke, "Lease/LeaseKeepAlive": keep_alive, "Watch/Watch": watched,
        "KV/Range": lambda request, context: pb.RangeResponse(),
        "KV/Put": lambda request, context: pb.PutResponse(header=pb.ResponseHeader(revision=5))}
    with scripted(methods) as address, sync.Client(address) as client:
        monkeypatch.setattr(engine.Told, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step(client)
        assert not client.inner._keeper._tasks
        assert len(revoked) == own, "a lease whose ID was given may be another's"


def test_an_interrupt_opens_the_barrier_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key has no lease: all would wait for ever."""
    result = engine.Told[Any].result

    def interrupted(told: engine.Told[Any]) -> Any:
        result(told)
        monkeypatch.undo()
        raise KeyboardInterrupt

    kv = kv_pb2.KeyValue(key=b"b", create_revision=5, mod_revision=5)
    found = pb.ResponseOp(response_range=pb.RangeResponse(kvs=[kv], count=1))
    line = Line(held(), pb.TxnResponse(succeeded=True, responses=[found]))
    with scripted(line.methods) as address, sync.Client(address) as client:
        monkeypatch.setattr(engine.Told, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.barrier("b").hold()
    assert len(line.deletes(b"b")) == 1


def test_an_interrupt_releases_no_lock_that_was_not_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may have taken it by the same object meanwhile."""
    async def fails(lock: queueing.Lock) -> bool:
        return False

    async def release(lock: queueing.Lock) -> None:
        released.append(lock)

    def interrupted(told: engine.Told[Any]) -> Any:
        monkeypatch.undo()
        monkeypatch.setattr(queueing.Lock, "release", release)
        told.wait()
        raise KeyboardInterrupt

    released = list[queueing.Lock]()
    with sync.Client("127.0.0.1:1") as client:
        monkeypatch.setattr(queueing.Lock, "try_acquire", fails)
        monkeypatch.setattr(engine.Told, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.lock("l").try_acquire()
    assert not released


def test_what_is_observed_ends_in_any_thread() -> None:
    with scripted({"KV/Range": lead, "Watch/Watch": watched}) as address, sync.Client(address) as client:
        observed = client.election("l").observe()
        assert next(observed).text == "a"

        async def drop() -> None:
            observed.close()  # type: ignore[attr-defined]

        engine.submit(drop()).result(5)


def test_a_leader_without_a_value_is_named_by_its_machine() -> None:
    """In both forms."""
    line = Line(held(), held())
    with scripted(line.methods) as address, sync.Client(address) as client:
        assert client.while_leading("l", lambda leadership: 1) == 1

        async def work(leadership: object) -> int:
            return 2

        assert engine.submit(client.inner.while_leading("l", work)).result(10) == 2
    values = [txn.success[0].request_put.value for txn in line.asked]
    assert values == [socket.gethostname().encode()] * 2


AT_EXIT = """
import atexit
{early}
from muster_client import sync, MusterError
client = sync.Client("127.0.0.1:1", timeout=0.2)
{late}
try:
    client.get("a")
except MusterError:
    print("called")
"""
CLOSE = """
def close():
    client.close()
    print("closed")
    try:
        client.get("a")
    except (MusterError, RuntimeError) as error:
        print(type(error).__name__)
atexit.register(close)
"""


@pytest.mark.parametrize(("early", "late", "error"), [
    ("", CLOSE, "MusterError"), (CLOSE, "", "RuntimeError")])  # fmt: skip
def test_a_client_is_closed_at_the_process_s_end(early: str, late: str, error: str) -> None:
    """Before the engine ends, and behind it: what was registered first runs last."""
    script = AT_EXIT.format(early=early, late=late)
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, timeout=15, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, ["called", "closed", error])
    assert "never awaited" not in ended.stderr


ENDED = """
import atexit, sys, threading
from muster_client import MusterError, sync

def call(when):
    with sync.Client(sys.argv[1]) as client:
        print(when, client.get("a").text)
    for seconds in (0.5, 5):  # a busy machine may not have dialled in the first of them
        with sync.Client("https://127.0.0.1:1", timeout=seconds) as client:
            try:
                client.get("a")
            except MusterError as error:
                told = str(error)
        if "refused" in told:
            break
    print(told)

def later():
    threading.main_thread().join()
    call("behind the main thread")

with sync.Client(sys.argv[1]) as client:
    client.get("a")
atexit.register(call, "at the exit")
threading.Thread(target=later).start()
"""


def test_connections_are_made_when_the_main_thread_has_ended() -> None:
    """By name, and by TLS: executors refuse work then."""
    with scripted({"KV/Range": lead}) as address:
        named = address.replace("127.0.0.1", "localhost")
        ended = subprocess.run(
            [sys.executable, "-c", ENDED, named], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    refused = "no endpoint can be reached: https://127.0.0.1:1: Connection refused"
    assert ended.stdout.splitlines() == ["behind the main thread a", refused, "at the exit a", refused]


HANGS = """
import socket, time
from muster_client import MusterError, sync
socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)
try:
    sync.Client("host.invalid:1", timeout=0.3).get("a")
except MusterError:
    print("called")
"""


def test_a_name_that_is_looked_up_holds_up_no_end() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, ["called"], "")


def test_what_blocks_has_a_thread_while_others_hang() -> None:
    made, goes_on = beside.Loop(), threading.Event()

    async def main() -> None:
        hang = [made.run_in_executor(None, goes_on.wait, 20) for _ in range(20)]
        assert await asyncio.gather(*(asyncio.to_thread(int, str(n)) for n in range(30))) == list(range(30))
        before = made._threads
        for n in range(10):
            assert await asyncio.to_thread(int, str(n)) == n
        assert made._threads == before, "one that is idle is used again"
        with pytest.raises(ValueError, match="no number"):
            await asyncio.to_thread(int, "no number")
        never = made.run_in_executor(None, goes_on.wait, 20)
        never.cancel()
        goes_on.set()
        assert all(await asyncio.gather(*hang))

    made.run_until_complete(main())
    made.close()


def test_what_blocks_runs_here_where_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the exit of Python 3.12."""
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    made = beside.Loop()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert made.run_until_complete(made.run_in_executor(None, threading.get_ident)) == threading.get_ident()
    made.close()


FORKS = """
import os, sys
from muster_client import sync

with sync.Client(sys.argv[1]) as client, client.watch("a", revision=7) as watch:
    print(next(watch).revision, flush=True)
    if (child := os.fork()) == 0:
        print("child", next(watch).revision, flush=True)
        sys.exit(0)  # and so leaves the blocks
    print("ended", os.waitpid(child, 0)[1])
    print("parent", next(watch).revision)
"""


def test_a_watch_goes_on_in_a_process_that_is_forked_off() -> None:
    """By a stream of its own, behind what was told; the parent's is untouched."""
    child_asked = threading.Event()

    def watch(requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        first = next(requests).create_request.start_revision
        yield pb.WatchResponse(created=True)
        for revision in (first, first + 1):
            kv = kv_pb2.KeyValue(key=b"a", mod_revision=revision, version=revision)
            yield pb.WatchResponse(header=pb.ResponseHeader(revision=revision), events=[kv_pb2.Event(kv=kv)])
            if first != 7:
                child_asked.set()
            child_asked.wait(10)
        say_nothing(context)

    with scripted({"Watch/Watch": watch}) as address:
        ended = subprocess.run(
            [sys.executable, "-c", FORKS, address], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["7", "child 8", "ended 0", "parent 8"]


FORKS_MIRROR = """
import os, signal, sys, threading
from muster_client import MusterError, sync

with sync.Client(sys.argv[1]) as client, client.mirror("l/1") as mirror:
    held, goes_on = threading.Event(), threading.Event()

    def apply():
        with mirror._inner._lock:
            held.set()
            goes_on.wait()

    threading.Thread(target=apply, daemon=True).start()
    held.wait()
    if os.fork() == 0:
        signal.alarm(10)
        for read in (lambda: mirror["l/1"], lambda: "l/1" in mirror, mirror.copy):
            try:
                read()
            except MusterError as error:
                print(str(error)[-17:])
        with mirror:
            print(mirror["l/1"].text, flush=True)
        os._exit(0)
    print("ended", os.wait()[1])
    goes_on.set()
"""


def test_a_mirror_is_refused_in_a_process_that_is_forked_off_as_it_follows() -> None:
    """It waited there for the lock of the thread that follows, for ever."""
    with scripted({"KV/Range": lead, "Watch/Watch": watched}) as address:
        ended = subprocess.run(
            [sys.executable, "-c", FORKS_MIRROR, address], capture_output=True, text=True, timeout=15,
            check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["here nothing does"] * 3 + ["a", "ended 0"]
