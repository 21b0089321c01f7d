"""v3electionpb.Election, as etcd serves it: an election of clientv3's ``concurrency`` that runs on the
server."""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.pb import election_pb2, rpc_pb2
from proxy.services.concurrency.lock import read
from proxy.services.concurrency.nested import Message
from proxy.services.concurrency.session import (
    Session,
    Sessions,
    created_at,
    delete_op,
    first_created,
    nobody,
    own_key,
    prefix_end,
    put_op,
    range_op,
)
from proxy.shared.context import Call, Context, Registry

SERVICE = "v3electionpb.Election"


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods; those that they call are found there, too."""
    sessions = Sessions(context, registry)
    for name, begin, request, kind in (
        ("Campaign", _campaign, election_pb2.CampaignRequest, "unary"),
        ("Proclaim", _proclaim, election_pb2.ProclaimRequest, "unary"),
        ("Leader", _leader, election_pb2.LeaderRequest, "unary"),
        ("Resign", _resign, election_pb2.ResignRequest, "unary"),
        ("Observe", _observe, election_pb2.LeaderRequest, "server_stream"),
    ):
        registry.unary(f"/{SERVICE}/{name}", _method(context, sessions, name, begin, request, kind))


def _method(
    context: Context,
    sessions: Sessions,
    name: str,
    begin: Callable[[Session, Message], None],
    kind: type[Message],
    grpc_type: str,
) -> Callable[[Call, bytes], None]:
    stats = context.method(grpc_type, SERVICE, name)

    def serve(call: Call, data: bytes) -> None:
        session = sessions.begin(call, stats)
        if session is not None and (request := read(session, kind, data)) is not None:
            begin(session, request)

    return serve


def _campaign(session: Session, request: Message) -> None:
    session.lease(request.lease, lambda lease: _Campaign(session, request, lease).start())


def _proclaim(session: Session, request: Message) -> None:
    def proclaimed(answer: Message, error: str) -> None:
        if session.go_on(error or ("" if answer.succeeded else errors.ELECTION_NOT_LEADER.text)):
            session.answer(election_pb2.ProclaimResponse(header=answer.header))

    def proclaim(lease: int) -> None:
        leader = request.leader
        session.nested.txn(
            _if_leader(leader.key, leader.rev, put_op(leader.key, request.value, lease)), proclaimed
        )

    _as_leader(session, request, proclaim)


def _resign(session: Session, request: Message) -> None:
    def resigned(answer: Message, error: str) -> None:
        if session.go_on(error):
            session.answer(election_pb2.ResignResponse(header=answer.header))

    def resign(lease: int) -> None:
        leader = request.leader
        session.nested.txn(_if_leader(leader.key, leader.rev, delete_op(leader.key)), resigned)

    _as_leader(session, request, resign)


def _leader(session: Session, request: Message) -> None:
    def found(answer: Message, error: str) -> None:
        if session.go_on(error or ("" if answer.kvs else errors.ELECTION_NO_LEADER.text)):
            session.answer(election_pb2.LeaderResponse(header=answer.header, kv=answer.kvs[0]))

    session.nested.range(first_created(request.name + b"/"), found)


def _observe(session: Session, request: Message) -> None:
    _Observer(session, request.name + b"/").look()


def _as_leader(session: Session, request: Message, then: Callable[[int], None]) -> None:
    if request.HasField("leader"):
        session.lease(request.leader.lease, then)
    else:
        session.fail(errors.ELECTION_LEADER_FIELD.text)


def _if_leader(key: bytes, revision: int, op: Message) -> Message:
    return rpc_pb2.TxnRequest(compare=[created_at(key, revision)], success=[op])


class _Campaign:
    """One candidate's way to leadership."""

    def __init__(self, session: Session, request: Message, lease: int) -> None:
        self._session = session
        self._name = request.name
        self._prefix = request.name + b"/"
        self._value = request.value
        self._lease = lease
        self._key = own_key(self._prefix, lease)
        self._revision = 0
        self._header: Message = None

    def start(self) -> None:
        """Stand for it."""
        own = range_op(rpc_pb2.RangeRequest(key=self._key))
        self._session.nested.txn(
            rpc_pb2.TxnRequest(
                compare=[created_at(self._key, 0)],
                success=[put_op(self._key, self._value, self._lease)],
                failure=[own],
            ),
            self._stands,
        )

    def _stands(self, answer: Message, error: str) -> None:
        session = self._session
        if answer is not None:
            self._header, self._revision = answer.header, answer.header.revision
        if not session.go_on(error):
            if answer is not None and answer.succeeded:
                self._resign()
            return
        session.give_up = self._resign
        if answer.succeeded:
            self._wait()
            return
        own = answer.responses[0].response_range.kvs[0]
        self._revision = own.create_revision
        if own.value == self._value:
            self._wait()
        else:
            session.nested.txn(
                _if_leader(self._key, self._revision, put_op(self._key, self._value, self._lease)),
                self._renamed,
            )

    def _renamed(self, answer: Message, error: str) -> None:
        """The session stood already, and says another value now."""
        error = error or ("" if answer.succeeded else errors.ELECTION_NOT_LEADER.text)
        if error and not self._session.over:
            self._resign()
        if self._session.go_on(error):
            self._wait()

    def _wait(self) -> None:
        self._session.wait_for_deletes(self._prefix, self._revision - 1, self._elected)

    def _elected(self, error: str) -> None:
        if self._session.go_on(error):
            leader = election_pb2.LeaderKey(
                name=self._name, key=self._key, rev=self._revision, lease=self._lease
            )
            self._session.answer(election_pb2.CampaignResponse(header=self._header, leader=leader))

    def _resign(self) -> None:
        self._session.nested.txn(_if_leader(self._key, self._revision, delete_op(self._key)), nobody)


class _Observer:
    """Tells one client who leads: the leader, each of its proclamations, and once its key is gone the next
    leader."""

    def __init__(self, session: Session, prefix: bytes) -> None:
        self._session = session
        self._prefix = prefix
        session.call.on_drain = session.nested.drained

    def look(self) -> None:
        """Who leads now?"""
        if not self._session.over:
            self._session.nested.range(first_created(self._prefix), self._found)

    def _found(self, answer: Message, error: str) -> None:
        session = self._session
        if session.over:
            return
        if error:
            session.finish()  # etcd's ends the stream, and says nothing
        elif answer.kvs:
            self._leads(answer.header, answer.kvs[0])
        else:
            session.nested.watch(
                rpc_pb2.WatchCreateRequest(
                    key=self._prefix,
                    range_end=prefix_end(self._prefix),
                    start_revision=answer.header.revision,
                ),
                self._candidates,
                self._lost,
            )

    def _candidates(self, response: Message) -> None:
        """The first put under the prefix is the leader's."""
        for event in response.events:
            if event.type == event.PUT:
                response.header.revision = event.kv.mod_revision
                self._session.nested.unwatch()
                self._leads(response.header, event.kv)
                return

    def _leads(self, header: Message, kv: Message) -> None:
        self._tell(header, kv)
        if not self._session.over:
            self._session.nested.watch(
                rpc_pb2.WatchCreateRequest(key=kv.key, start_revision=header.revision + 1),
                self._proclaimed,
                self._lost,
            )

    def _proclaimed(self, response: Message) -> None:
        for event in response.events:
            if event.type == event.DELETE:
                self._session.nested.unwatch()
                self.look()
                return
            self._tell(response.header, event.kv)

    def _tell(self, header: Message, kv: Message) -> None:
        session = self._session
        if not session.over:
            session.stats.sent += 1
            session.call.send(election_pb2.LeaderResponse(header=header, kv=kv).SerializeToString())

    def _lost(self, error: str) -> None:
        self._session.finish()
