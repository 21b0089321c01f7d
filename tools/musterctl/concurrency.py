"""clientv3's ``concurrency`` for ``lock`` and ``elect``: a session (a lease that is kept alive), and a queue
of keys under a prefix, of which the oldest holds the lock or leads."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import NoReturn, TypeVar

import grpc

from cluster.pb import kv_pb2, rpc_pb2
from tools.musterctl.client import Client, RequestError
from tools.musterctl.command import Exit
from tools.musterctl.commands.keys.lease import renewals
from tools.musterctl.commands.keys.watch import Watcher, cancel_reason

Result = TypeVar("Result")
_REVOKED_IN_S = 10.0
_AGAIN_S = 0.05
_PERHAPS_DONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)  # what so failed
_ENDED = b"e"  # other bytes are signals' numbers
_CREATE = rpc_pb2.RangeRequest.CREATE


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


class Signals:
    """SIGINT and SIGTERM, from now on: they interrupt what :meth:`run` runs, and nothing else. What was begun
    is tidied up; a second one ends the process while that is done.

    Steps run in threads, for an exception that a signal raises in the midst of gRPC breaks its locks.
    """

    def __init__(self) -> None:
        self._came = False
        self._moved, self._move = os.pipe()
        # The kernel gives a signal to any thread: only this wakes the main one, which handles it
        os.set_blocking(self._move, False)
        signal.set_wakeup_fd(self._move, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def run(self, step: Callable[[], Result]) -> Result:
        """What a step gives, or raises. Interrupted: a signal came, perhaps before; the step is left to
        itself, as the process ends soon."""
        ended: list[Callable[[], Result]] = []

        def work() -> None:
            try:
                found = step()
            except BaseException as error:
                ended.append(functools.partial(_raise, error))
            else:
                ended.append(lambda: found)
            os.write(self._move, _ENDED)

        threading.Thread(target=work, daemon=True).start()
        while True:
            if self._came:
                raise Interrupted
            if ended:
                return ended[0]()
            if os.read(self._moved, 1) != _ENDED:
                self._came = True

    def default(self) -> None:
        """The next one ends the process."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _raise(error: BaseException) -> NoReturn:
    raise error


class Session:
    """A lease of this process, kept alive by a thread while its block runs, and revoked behind it: what hangs
    on it is gone then, however the block ends."""

    def __init__(self, client: Client, ttl_s: int, signals: Signals) -> None:
        self.client, self.signals = client, signals
        self.over = threading.Event()  # the lease is gone
        self._ttl_s = ttl_s
        # Chosen here: a grant whose answer was not waited for can be revoked
        self.lease = secrets.randbits(62) + 1
        self._granted = False

    def __enter__(self) -> Session:
        try:
            self.signals.run(self._grant)
        except BaseException as error:
            if not isinstance(error, RequestError) or error.code in _PERHAPS_DONE:
                self._revoke()
            raise
        threading.Thread(target=self._keep, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._revoke()

    def _grant(self) -> None:
        self.client.unary(
            "Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=self._ttl_s, ID=self.lease),
            rpc_pb2.LeaseGrantResponse)
        self._granted = True

    def _revoke(self) -> None:
        """A lease that cannot be revoked in time ends by itself."""
        self.signals.default()
        deadline = time.monotonic() + _REVOKED_IN_S
        with contextlib.suppress(RequestError, Exit):
            while not self._revoked(deadline) and not self._granted and time.monotonic() < deadline:
                time.sleep(_AGAIN_S)  # the grant may still be on its way

    def _revoked(self, deadline: float) -> bool:
        try:
            self.client.unary(
                "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=self.lease), rpc_pb2.LeaseRevokeResponse,
                deadline - time.monotonic(), safe_to_repeat=True)
        except RequestError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
        return True

    def _keep(self) -> None:
        try:
            for answer in renewals(self.client, self.lease):
                if answer.TTL <= 0:
                    break
        except (Exit, RequestError):
            pass
        self.over.set()

    def wait(self) -> None:
        """Until the lease is gone."""
        self.over.wait()


class Place:
    """This process's key in the queue of a name."""

    def __init__(self, session: Session, name: bytes) -> None:
        self._client = session.client
        self._lease = session.lease
        self.prefix = name + b"/"
        self.key = self.prefix + (b"%x" % session.lease)
        self.revision = 0  # at which the key was created
        self.header = rpc_pb2.ResponseHeader()

    def take(self, value: bytes) -> bool:
        """Put the key, unless it is there; whether it is the first one then."""
        own = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=self.key))
        first = rpc_pb2.RequestOp(request_range=_first_created(self.prefix))
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=self.key, value=value, lease=self._lease))
        answer = self.txn(
            rpc_pb2.TxnRequest(compare=[_created(self.key, 0)], success=[put, first], failure=[own, first]))
        self.header, self.revision = answer.header, answer.header.revision
        if not answer.succeeded:
            self.revision = answer.responses[0].response_range.kvs[0].create_revision
        oldest = answer.responses[1].response_range.kvs
        return not oldest or oldest[0].create_revision == self.revision

    def wait(self) -> None:
        """Until every older key is gone, one watch at a time."""
        while True:
            before = self.range(_last_created(self.prefix, self.revision - 1))
            if not before.kvs:
                return
            self._wait_for_delete(before.kvs[0].key, before.header.revision)

    def _wait_for_delete(self, key: bytes, revision: int) -> None:
        for response in watch(self._client, rpc_pb2.WatchCreateRequest(key=key, start_revision=revision)):
            if any(event.type == event.DELETE for event in response.events):
                return

    def look(self) -> rpc_pb2.RangeResponse:
        return self.range(rpc_pb2.RangeRequest(key=self.key))

    def txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        return self._client.unary("KV/Txn", request, rpc_pb2.TxnResponse)

    def range(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        return self._client.unary("KV/Range", request, rpc_pb2.RangeResponse, safe_to_repeat=True)


def observe(client: Client, name: bytes) -> Iterator[rpc_pb2.RangeResponse]:
    """The leader, each of its values, and the next leader after it; for ever. RequestError."""
    prefix = name + b"/"
    while True:
        found = client.unary("KV/Range", _first_created(prefix), rpc_pb2.RangeResponse, safe_to_repeat=True)
        if found.kvs:
            header, pair = found.header, found.kvs[0]
        else:
            header, pair = _first_put(client, prefix, found.header.revision)
        yield rpc_pb2.RangeResponse(header=header, kvs=[pair])
        yield from _values(client, pair.key, header.revision + 1)


def _first_put(
    client: Client, prefix: bytes, revision: int
) -> tuple[rpc_pb2.ResponseHeader, kv_pb2.KeyValue]:
    request = rpc_pb2.WatchCreateRequest(key=prefix, range_end=_end(prefix), start_revision=revision)
    for response in watch(client, request):
        for event in response.events:
            if event.type == event.PUT:
                response.header.revision = event.kv.mod_revision
                return response.header, event.kv
    raise AssertionError("a watch ends by an error alone")


def _values(client: Client, key: bytes, revision: int) -> Iterator[rpc_pb2.RangeResponse]:
    for response in watch(client, rpc_pb2.WatchCreateRequest(key=key, start_revision=revision)):
        for event in response.events:
            if event.type == event.DELETE:
                return
            yield rpc_pb2.RangeResponse(header=response.header, kvs=[event.kv])


def watch(client: Client, request: rpc_pb2.WatchCreateRequest) -> Iterator[rpc_pb2.WatchResponse]:
    """Answers with events, for ever. RequestError if the watch was canceled."""
    for response in Watcher(client, request).responses():
        if response.canceled:
            raise RequestError(cancel_reason(response), grpc.StatusCode.CANCELLED)
        yield response


def _first_created(prefix: bytes) -> rpc_pb2.RangeRequest:
    """Asks for the oldest key."""
    return rpc_pb2.RangeRequest(
        key=prefix, range_end=_end(prefix), limit=1, sort_target=_CREATE,
        sort_order=rpc_pb2.RangeRequest.ASCEND)


def _last_created(prefix: bytes, max_revision: int) -> rpc_pb2.RangeRequest:
    """Asks for the newest key that is as old as that."""
    request = _first_created(prefix)
    request.sort_order = rpc_pb2.RangeRequest.DESCEND
    request.max_create_revision = max_revision
    return request


def _created(key: bytes, revision: int) -> rpc_pb2.Compare:
    return rpc_pb2.Compare(
        key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=revision)


def _end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))
