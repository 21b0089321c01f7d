"""v3electionpb.Election, as in etcd: an election of clientv3's ``concurrency`` on the server."""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.pb import election_pb2, rpc_pb2
from proxy.services.concurrency import queue
from proxy.services.concurrency.nested import Message, Then
from proxy.services.concurrency.session import Session, Sessions
from proxy.shared.context import Context, Registry

SERVICE = "v3electionpb.Election"


def register(registry: Registry, context: Context) -> None:
    sessions = Sessions(context, registry, SERVICE)
    sessions.method("Campaign", election_pb2.CampaignRequest, _campaign)
    sessions.method("Proclaim", election_pb2.ProclaimRequest, _proclaim)
    sessions.method("Leader", election_pb2.LeaderRequest, _leader)
    sessions.method("Resign", election_pb2.ResignRequest, _resign)
    sessions.method("Observe", election_pb2.LeaderRequest, _observe, "server_stream")


def _campaign(session: Session, request: Message) -> None:
    session.lease(request.lease, lambda lease: _Campaign(session, request, lease).start(), revokes=True)


def _proclaim(session: Session, request: Message) -> None:
    def proclaimed(answer: Message, error: str) -> None:
        if session.go_on(error or ("" if answer.succeeded else errors.ELECTION_NOT_LEADER.text)):
            session.answer(election_pb2.ProclaimResponse(header=answer.header))

    def proclaim(lease: int) -> None:
        leader = request.leader
        put = queue.put_op(leader.key, request.value, lease)
        session.nested.txn(queue.if_created(leader.key, leader.rev, put), proclaimed)

    _as_leader(session, request, proclaim)


def _resign(session: Session, request: Message) -> None:
    def resigned(answer: Message, error: str) -> None:
        if session.go_on(error):
            session.answer(election_pb2.ResignResponse(header=answer.header))

    def resign(lease: int) -> None:
        leader = request.leader
        session.nested.txn(queue.if_created(leader.key, leader.rev, queue.delete_op(leader.key)), resigned)

    _as_leader(session, request, resign)


def _leader(session: Session, request: Message) -> None:
    def found(answer: Message, error: str) -> None:
        if session.go_on(error or ("" if answer.kvs else errors.ELECTION_NO_LEADER.text)):
            session.answer(election_pb2.LeaderResponse(header=answer.header, kv=answer.kvs[0]))

    session.nested.range(queue.first_created(request.name + b"/"), found)


def _observe(session: Session, request: Message) -> None:
    _Observer(session, request.name + b"/").look()


def _as_leader(session: Session, request: Message, then: Callable[[int], None]) -> None:
    if request.HasField("leader"):
        session.lease(request.leader.lease, then)
    else:
        session.fail(errors.ELECTION_LEADER_FIELD.text)


class _Campaign:
    def __init__(self, session: Session, request: Message, lease: int) -> None:
        self._session = session
        self._name = request.name
        self._prefix = request.name + b"/"
        self._value = request.value
        self._lease = lease
        self._key = queue.own_key(self._prefix, lease)
        self._revision = 0
        self._header: Message = None

    def start(self) -> None:
        self._session.nested.txn(queue.enqueue(self._key, self._value, self._lease), self._stands)

    def _stands(self, answer: Message, error: str) -> None:
        session = self._session
        if not session.go_on(error):
            return
        self._header, self._revision = answer.header, answer.header.revision
        if answer.succeeded:
            self._wait()
            return
        own = answer.responses[0].response_range.kvs[0]
        self._revision = own.create_revision
        if own.value == self._value:
            self._wait()
        else:
            put = queue.put_op(self._key, self._value, self._lease)
            session.nested.txn(queue.if_created(self._key, self._revision, put), self._renamed)

    def _renamed(self, answer: Message, error: str) -> None:
        error = error or ("" if answer.succeeded else errors.ELECTION_NOT_LEADER.text)
        if error:
            self._resign(lambda *_: self._session.fail(error))
        else:
            self._wait()

    def _wait(self) -> None:
        self._value = b""  # it is stored, and not asked for again
        self._session.give_up = self._resign
        self._session.wait_for_deletes(self._prefix, self._revision - 1, self._elected)

    def _elected(self, error: str) -> None:
        if self._session.go_on(error):
            key, revision = self._key, self._revision
            leader = election_pb2.LeaderKey(name=self._name, key=key, rev=revision, lease=self._lease)
            self._session.answer(election_pb2.CampaignResponse(header=self._header, leader=leader))

    def _resign(self, then: Then = queue.nobody) -> None:
        resign = queue.if_created(self._key, self._revision, queue.delete_op(self._key))
        self._session.nested.txn(resign, then)


class _Observer:
    """Sends one client the leader, each of its proclamations, and once its key is gone the next leader."""

    def __init__(self, session: Session, prefix: bytes) -> None:
        self._session = session
        self._prefix = prefix
        session.call.on_drain = session.nested.drained
        session.call.waits_long(len(prefix))
        session.waits(errors.STOPPED)

    def look(self) -> None:
        if not self._session.over:
            self._session.nested.range(queue.first_created(self._prefix), self._found)

    def _found(self, answer: Message, error: str) -> None:
        session = self._session
        if session.over:
            return
        if error:
            session.finish()  # as etcd's, without an error
        elif answer.kvs:
            self._leads(answer.header, answer.kvs[0])
        else:
            key, end = self._prefix, queue.prefix_end(self._prefix)
            revision = answer.header.revision
            watch = rpc_pb2.WatchCreateRequest(key=key, range_end=end, start_revision=revision)
            session.nested.watch(watch, self._candidates, self._lost)

    def _candidates(self, response: Message) -> None:
        for event in response.events:
            if event.type == event.PUT:
                response.header.revision = event.kv.mod_revision
                self._session.nested.unwatch()
                self._leads(response.header, event.kv)
                return

    def _leads(self, header: Message, kv: Message) -> None:
        self._tell(header, kv)
        if not self._session.over:
            watch = rpc_pb2.WatchCreateRequest(key=kv.key, start_revision=header.revision + 1)
            self._session.nested.watch(watch, self._proclaimed, self._lost)

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
