"""What Lock and Election share: a session's lease, the queue of keys under a prefix, and waiting for those
before one's own.

The rules are those of clientv3's ``concurrency``, which etcd's services run on the server: who has the
lowest create revision under ``name/`` has it; each of the others watches the key right before his, and
looks again once that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from proxy.grpc.inner import Served
from proxy.routing.waiting import MethodStats
from proxy.services.concurrency.nested import Message, Nested, Then
from proxy.shared.context import Call, Context

SESSION_TTL_S = 60
_CREATED = rpc_pb2.RangeRequest.CREATE


def prefix_end(prefix: bytes) -> bytes:
    """Behind all keys of a prefix that ends with a slash."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def first_created(prefix: bytes) -> Message:
    """Asks who has it."""
    return rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_target=_CREATED,
        sort_order=rpc_pb2.RangeRequest.ASCEND,
    )


def last_created(prefix: bytes, max_revision: int) -> Message:
    """Asks who comes right before."""
    return rpc_pb2.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_target=_CREATED,
        sort_order=rpc_pb2.RangeRequest.DESCEND,
        max_create_revision=max_revision,
    )


def created_at(key: bytes, revision: int) -> Message:
    """Compares a key's create revision; 0: it is not there."""
    return rpc_pb2.Compare(
        key=key, target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.EQUAL, create_revision=revision
    )


def put_op(key: bytes, value: bytes, lease: int) -> Message:
    """A put, as part of a transaction."""
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))


def range_op(request: Message) -> Message:
    """A range, as part of a transaction."""
    return rpc_pb2.RequestOp(request_range=request)


def delete_op(key: bytes) -> Message:
    """A deletion, as part of a transaction."""
    return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))


def own_key(prefix: bytes, lease: int) -> bytes:
    """A session's key in the queue."""
    return prefix + (b"-%x" % -lease if lease < 0 else b"%x" % lease)


class Sessions:
    """The calls of one service that are under way."""

    def __init__(self, context: Context, registry: Served) -> None:
        self._context = context
        self._registry = registry
        self._open: set[Session] = set()
        context.on_stop.append(self._stop)

    def begin(self, call: Call, stats: MethodStats) -> Session | None:
        """A call has come; None: it has been refused."""
        stats.started += 1
        context = self._context
        if context.stopping:
            context.refuse(call, stats, errors.STOPPED)
            return None
        if context.no_leader(call, stats):
            return None
        session = Session(
            context, Nested(context.router.loop, self._registry, call), call, stats, self._open.discard
        )
        self._open.add(session)
        return session

    def _stop(self) -> None:
        """The front shuts down: who waits gives up his place, and is told to ask another host."""
        for session in tuple(self._open):
            session.stop()


class Session:
    """One call: the questions that it asks, and how it ends."""

    def __init__(
        self,
        context: Context,
        nested: Nested,
        call: Call,
        stats: MethodStats,
        ended: Callable[[Session], None],
    ) -> None:
        self.nested = nested
        self.call = call
        self.give_up: Callable[[], None] | None = (
            None  # undoes what a call has done that ends without its answer
        )
        self._context = context
        self.stats = stats
        self._ended = ended
        self.over = False
        call.on_cancel = self._cancelled

    def lease(self, lease: int, then: Callable[[int], None]) -> None:
        """The session's lease: the client's, or one that is granted for a minute and not kept alive."""

        def granted(answer: Message, error: str) -> None:
            if self.go_on(error):
                then(answer.ID)

        if lease:
            then(lease)
        else:
            self.nested.grant(SESSION_TTL_S, granted)

    def go_on(self, error: str = "") -> bool:
        """Whether there is still somebody to work for; an error is his answer."""
        if error and not self.over:
            self.fail(error)
        return not self.over

    def wait_for_deletes(self, prefix: bytes, max_revision: int, then: Callable[[str], None]) -> None:
        """``then`` once every key of the prefix that is as old is gone; or with what went wrong."""
        nested = self.nested

        def look() -> None:
            if not self.over:
                nested.range(last_created(prefix, max_revision), found)

        def found(answer: Message, error: str) -> None:
            if self.over:
                return
            if error or not answer.kvs:
                then(error)
                return
            nested.watch(
                rpc_pb2.WatchCreateRequest(key=answer.kvs[0].key, start_revision=answer.header.revision),
                events,
                then,
            )

        def events(response: Message) -> None:
            if any(event.type == event.DELETE for event in response.events):
                nested.unwatch()
                look()

        look()

    def answer(self, response: Message) -> None:
        """The call has what it wanted."""
        if self._end():
            self.stats.ok += 1
            self.call.reply(response.SerializeToString())

    def fail(self, text: str) -> None:
        """It has not. What a nested call says goes on under Unknown, as from etcd's."""
        if self._end():
            self.stats.failed(errors.Code.UNKNOWN)
            self.call.finish(int(errors.Code.UNKNOWN), text)

    def refuse(self, error: EtcdError) -> None:
        """The request is none."""
        if self._end():
            self._context.refuse(self.call, self.stats, error)

    def finish(self) -> None:
        """A stream has ended."""
        if self._end():
            self.stats.ok += 1
            self.call.finish()

    def stop(self) -> None:
        """The front shuts down."""
        give_up = self.give_up
        if self._end():
            self._context.refuse(self.call, self.stats, errors.STOPPED)
            if give_up is not None:
                give_up()

    def _cancelled(self, call: Any) -> None:
        """The client has gone, or its deadline has passed."""
        give_up = self.give_up
        if self._end():
            self.stats.failed(errors.Code.CANCELED)
            if give_up is not None:
                give_up()

    def _end(self) -> bool:
        if self.over:
            return False
        self.over = True
        self.nested.unwatch()
        self._ended(self)
        return True


def nobody(answer: Message, error: str) -> None:
    """Takes the answer to a question that is not waited for."""


__all__ = [
    "Session",
    "Sessions",
    "Then",
    "created_at",
    "delete_op",
    "first_created",
    "nobody",
    "own_key",
    "put_op",
    "range_op",
]
