"""v3lockpb.Lock, as etcd serves it: a mutex of clientv3's ``concurrency`` that runs on the server."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import lock_pb2, rpc_pb2
from proxy.services.concurrency.nested import Message
from proxy.services.concurrency.session import (
    Session,
    Sessions,
    created_at,
    first_created,
    nobody,
    own_key,
    put_op,
    range_op,
)
from proxy.shared.context import Call, Context, Registry

SERVICE = "v3lockpb.Lock"


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods; those that they call are found there, too."""
    sessions = Sessions(context, registry)
    locks = context.method("unary", SERVICE, "Lock")
    unlocks = context.method("unary", SERVICE, "Unlock")

    def lock(call: Call, data: bytes) -> None:
        session = sessions.begin(call, locks)
        if session is not None and (request := read(session, lock_pb2.LockRequest, data)) is not None:
            session.lease(request.lease, lambda lease: _Lock(session, request.name + b"/", lease).acquire())

    def unlock(call: Call, data: bytes) -> None:
        session = sessions.begin(call, unlocks)
        if session is None or (request := read(session, lock_pb2.UnlockRequest, data)) is None:
            return

        def deleted(answer: Message, error: str) -> None:
            if session.go_on(error):
                session.answer(lock_pb2.UnlockResponse(header=answer.header))

        session.nested.delete(request.key, deleted)

    registry.unary(f"/{SERVICE}/Lock", lock)
    registry.unary(f"/{SERVICE}/Unlock", unlock)


def read(session: Session, kind: type[Message], data: bytes) -> Message | None:
    """The request; None: it is no such message, and has been refused."""
    try:
        return validate.parse(kind.FromString, data)
    except EtcdError as error:
        session.refuse(error)
        return None


class _Lock:
    """One client's way to the lock."""

    def __init__(self, session: Session, prefix: bytes, lease: int) -> None:
        self._session = session
        self._prefix = prefix
        self._lease = lease
        self._key = own_key(prefix, lease)
        self._mine = False  # this call has put the key

    def acquire(self) -> None:
        """Queue up, and see who is first: alone, that is all."""
        own = rpc_pb2.RangeRequest(key=self._key)
        owner = range_op(first_created(self._prefix))
        self._session.nested.txn(
            rpc_pb2.TxnRequest(
                compare=[created_at(self._key, 0)],
                success=[put_op(self._key, b"", self._lease), owner],
                failure=[range_op(own), owner],
            ),
            self._queued,
        )

    def _queued(self, answer: Message, error: str) -> None:
        session = self._session
        if answer is not None and answer.succeeded:
            self._mine = True
        if not session.go_on(error):
            if self._mine:
                self._release()
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
        """Everybody before is gone. Is the own key still there? Its lease may have ended meanwhile."""
        if error:
            self._release()
            self._session.fail(error)
        else:
            self._session.nested.range(rpc_pb2.RangeRequest(key=self._key), self._looked)

    def _looked(self, answer: Message, error: str) -> None:
        session = self._session
        if error and not session.over:
            self._release()
        if session.go_on(error or ("" if answer.kvs else errors.SESSION_EXPIRED.text)):
            self._taken(answer.header)

    def _taken(self, header: Message) -> None:
        self._session.answer(lock_pb2.LockResponse(header=header, key=self._key))

    def _release(self) -> None:
        self._session.nested.delete(self._key, nobody)
