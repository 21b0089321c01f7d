"""What Lock and Election share: a session's lease, the queue of keys under a prefix, and waiting for earlier
ones. The rules are those of clientv3's ``concurrency``: the key with the lowest create revision under
``name/`` holds. Each other client watches the key right before its own, and looks again once that is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from proxy.routing.waiting import MethodStats
from proxy.services.concurrency import queue
from proxy.services.concurrency.nested import Message, Nested, Then, Uncounted
from proxy.shared.context import Call, Context, Registry

SESSION_TTL_S = 60


class Sessions:
    """The calls of one service that are under way. ``registry`` has the methods that they call, too."""

    def __init__(self, context: Context, registry: Registry, service: str) -> None:
        self._context = context
        self._registry = registry
        self._called = Uncounted(context, registry)
        self._service = service
        self._open: set[Session] = set()
        context.on_stop.append(self._stop)

    def method(self, name: str, kind: type[Message], begin: Callable[[Session, Message], None],
               grpc_type: str = "unary") -> None:
        context = self._context
        stats = context.method(grpc_type, self._service, name)
        streams = grpc_type != "unary"
        parse = validate.parse_streamed if streams else validate.parse

        def serve(call: Call, data: bytes) -> None:
            stats.started += 1
            if context.no_stream(call, stats):
                return
            try:
                request = parse(kind.FromString, data)
            except EtcdError as error:
                context.refuse(call, stats, error)
                return
            nested = Nested(context.router.loop, self._called, call)
            session = Session(context, nested, call, stats, self._open.discard)
            self._open.add(session)
            if streams and context.needs_leader(call):
                context.guarded[call] = session.leaderless
            begin(session, request)

        self._registry.unary(f"/{self._service}/{name}", serve, "stream" if streams else "unary")

    def _stop(self) -> None:
        """The front shuts down: who waits for others gives up its place, and asks another host. The rest is
        answered within the stop's grace, as other calls are."""
        for session in tuple(self._open):
            session.stop()


class Session:
    def __init__(self, context: Context, nested: Nested, call: Call, stats: MethodStats,
                 ended: Callable[[Session], None]) -> None:
        self.nested = nested
        self.call = call
        self.give_up: Callable[..., None] | None = None  # undoes the work of a call without an answer
        self._own = 0  # a lease of this call alone
        self._context = context
        self.stats = stats
        self._at_stop: ErrorKind | None = None  # what ends it as the host stops; None: it goes on
        self._ended = ended
        self.over = False
        call.on_cancel = self._cancelled
        nested.on_fault = self._fault

    def lease(self, lease: int, then: Callable[[int], None], revokes: bool = False) -> None:
        """``then`` gets the client's lease, or a new one. ``revokes``: unless the call is answered, nobody
        knows the new one, and it ends with all its keys. A client that tries again under its own lease takes
        over the key, as in etcd."""
        def granted(answer: Message, error: str) -> None:
            if self.go_on(error):
                self._own = answer.ID if revokes else 0
                then(answer.ID)

        if lease:
            then(lease)
        else:
            self.nested.grant(SESSION_TTL_S, granted)

    def go_on(self, error: str = "") -> bool:
        """Whether the client still waits; an error is its answer."""
        if error and not self.over:
            self.fail(error)
        return not self.over

    def wait_for_deletes(self, prefix: bytes, max_revision: int, then: Callable[[str], None]) -> None:
        """``then`` once every key of the prefix that is as old is gone; or with what went wrong. That may
        take as long as another leads: the leader's Resign and keep-alives may need the same window."""
        self.call.waits_long(len(prefix))
        _Deletes(self, queue.last_created(prefix, max_revision), then).look()

    def waits(self, at_stop: ErrorKind) -> bool:
        """It needs other clients from here on, and this error ends it as the host stops. Whether it goes
        on: the host may be stopping already."""
        self._at_stop = at_stop
        if self._context.stopping:
            self.stop()
            return False
        return not self.over

    def answer(self, response: Message) -> None:
        if self._end():
            self.stats.ok += 1
            self.call.reply(response.SerializeToString())

    def fail(self, text: str) -> None:
        """A nested call's error goes on under Unknown, as from etcd's."""
        if self.give_up is not None and text == errors.STOPPED.text:  # that was not sent; the key was put
            text = errors.TIMEOUT_DUE_TO_LEADER_FAIL.text
        if self._end():
            self.stats.failed(errors.Code.UNKNOWN)
            self.call.finish(int(errors.Code.UNKNOWN), text)
            self._undo(None)

    def finish(self) -> None:
        if self._end():
            self.stats.ok += 1
            self.call.finish()

    def stop(self) -> None:
        """The answer waits for the key's end, as that of a failure: a client that tries again elsewhere under
        its lease would take over the key, and lose it to this host's late request."""
        at_stop, self._at_stop = self._at_stop, None
        if at_stop is None or self.over:
            return

        def tidied(*_: object) -> None:
            self.give_up, self._own = None, 0
            self._refuse(at_stop)

        self.nested.drop()
        self._undo(self.give_up, tidied)

    def leaderless(self, call: Call) -> None:
        self._refuse(errors.NO_LEADER)

    def _fault(self) -> None:
        self._refuse(errors.INTERNAL_FAULT)

    def _refuse(self, error: ErrorKind) -> None:
        give_up = self.give_up
        if self._end():
            self._context.refuse(self.call, self.stats, error)
            self._undo(give_up)

    def _cancelled(self, call: Any) -> None:
        give_up = self.give_up
        if self._end():
            self._context.given_up(self.call, self.stats)
            self._undo(give_up)

    def _undo(self, give_up: Callable[..., None] | None, then: Then = queue.nobody) -> None:
        """``then``: once it is done, if there is anything to undo, else at once."""
        if self._own:
            self.nested.revoke(self._own, then)
        elif give_up is not None:
            give_up(then)
        else:
            then(None, "")

    def _end(self) -> bool:
        if self.over:
            return False
        self.over = True
        self.nested.drop()
        self._context.unguard(self.call)
        # they would refer to each other until the garbage collector comes
        self.call.on_cancel = self.call.on_drain = self.give_up = self.nested.on_fault = None
        self._ended(self)
        return True


class _Deletes:
    """Waits until what a question asks for is there no more."""

    __slots__ = ("_question", "_session", "_then")

    def __init__(self, session: Session, question: Message, then: Callable[[str], None]) -> None:
        self._session = session
        self._question = question
        self._then = then

    def look(self) -> None:
        if not self._session.over:
            self._session.nested.range(self._question, self._found)

    def _found(self, answer: Message, error: str) -> None:
        session = self._session
        if session.over:
            return
        if error or not answer.kvs:
            self._then(error)
        elif session.waits(errors.TIMEOUT_DUE_TO_LEADER_FAIL):  # its own key was put, and may stay
            watch = rpc_pb2.WatchCreateRequest(key=answer.kvs[0].key, start_revision=answer.header.revision)
            session.nested.watch(watch, self._events, self._then)

    def _events(self, response: Message) -> None:
        if any(event.type == event.DELETE for event in response.events):
            self._session.nested.unwatch()
            self.look()
