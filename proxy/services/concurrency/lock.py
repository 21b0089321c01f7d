"""v3lockpb.Lock, as in etcd: a mutex of clientv3's ``concurrency`` on the server."""

from __future__ import annotations

from cluster import errors
from cluster.pb import lock_pb2, rpc_pb2
from proxy.services.concurrency import queue
from proxy.services.concurrency.nested import Message, Then
from proxy.services.concurrency.session import Session, Sessions
from proxy.shared.context import Context, Registry

SERVICE = "v3lockpb.Lock"


def register(registry: Registry, context: Context) -> None:
    sessions = Sessions(context, registry, SERVICE)
    sessions.method("Lock", lock_pb2.LockRequest, _lock)
    sessions.method("Unlock", lock_pb2.UnlockRequest, _unlock)


def _lock(session: Session, request: Message) -> None:
    session.lease(
        request.lease, lambda lease: _Lock(session, request.name + b"/", lease).acquire(), revokes=True)


def _unlock(session: Session, request: Message) -> None:
    def deleted(answer: Message, error: str) -> None:
        if session.go_on(error):
            session.answer(lock_pb2.UnlockResponse(header=answer.header))

    session.nested.delete(request.key, deleted)


class _Lock:
    def __init__(self, session: Session, prefix: bytes, lease: int) -> None:
        self._session = session
        self._prefix = prefix
        self._lease = lease
        self._key = queue.own_key(prefix, lease)

    def acquire(self) -> None:
        owner = queue.range_op(queue.first_created(self._prefix))
        self._session.nested.txn(queue.enqueue(self._key, b"", self._lease, owner), self._queued)

    def _queued(self, answer: Message, error: str) -> None:
        session = self._session
        if not session.go_on(error):
            return
        revision = answer.header.revision
        if not answer.succeeded:
            revision = answer.responses[0].response_range.kvs[0].create_revision
        first = answer.responses[1].response_range.kvs
        if not first or first[0].create_revision == revision:
            self._taken(answer.header)
            return
        session.give_up = self._release
        session.wait_for_deletes(self._prefix, revision - 1, self._first)

    def _first(self, error: str) -> None:
        """All earlier keys are gone; the own one may be, too, if its lease has ended."""
        if error:
            self._fail(error)
        else:
            self._session.nested.range(rpc_pb2.RangeRequest(key=self._key), self._looked)

    def _looked(self, answer: Message, error: str) -> None:
        if error:
            self._fail(error)
        elif self._session.go_on("" if answer.kvs else errors.SESSION_EXPIRED.text):
            self._taken(answer.header)

    def _taken(self, header: Message) -> None:
        self._session.answer(lock_pb2.LockResponse(header=header, key=self._key))

    def _fail(self, error: str) -> None:
        """The answer waits for the key's end, as in etcd: a client that tries again takes over the key."""
        if not self._session.over:
            self._session.nested.delete(self._key, lambda *_: self._session.fail(error))

    def _release(self, then: Then = queue.nobody) -> None:
        self._session.nested.delete(self._key, then)
