"""Keep-alives: one question for those of a tick, answers per stream in order."""

from __future__ import annotations

from struct import Struct
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID, Kind, Principal, split
from cluster.pb import rpc_pb2
from cluster.wire.messages import LEASE_DUE, Method, Status
from cluster.wire.protobuf import varint
from proxy.grpc import held
from proxy.services.leases import keepalive
from proxy.services.leases.keepalive import KeepAlive
from tests.garbage import no_garbage
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net, Request


class Alive:
    """A front whose host 1 leads, and what its node is asked."""

    def __init__(self) -> None:
        self.net = Net().started(1)
        self.node = self.net.nodes[1]
        self.handler = KeepAlive(self.net.context, "etcdserverpb.Lease")

    def stream(self) -> FakeCall:
        call = FakeCall()
        self.handler.opened(call)
        return call

    def say(self, call: FakeCall, *leases: int) -> None:
        for lease in leases:
            self.handler.message(call, rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def asked(self) -> list[tuple[Request, tuple[int, ...]]]:
        """The questions for many that have come, and the leases in them."""
        self.net.run()
        return [
            (r, Struct(f"<{len(r.body) // 8}q").unpack(r.body))
            for r in self.node.take(Method.LEASE_KEEPALIVES)
        ]

    def answer(self, request: Request, *ttls: int, revision: int = 4) -> None:
        self.node.ok(request, revision, Struct(f"<{len(ttls)}q").pack(*ttls))
        self.net.run()


def told(call: FakeCall) -> list[tuple[int, int]]:
    return [(r.ID, r.TTL) for r in map(rpc_pb2.LeaseKeepAliveResponse.FromString, call.replies)]


def test_the_keep_alives_of_a_tick_are_one_question_and_each_stream_is_answered_in_order() -> None:
    alive = Alive()
    one, other = alive.stream(), alive.stream()
    alive.say(one, 1, 2)
    alive.say(other, 2**62)
    alive.say(one, 1)
    ((request, leases),) = alive.asked()
    assert leases == (1, 2, 2**62, 1)
    alive.answer(request, 5, 0, 600, 5)
    assert told(one) == [(1, 5), (2, 0), (1, 5)]
    assert told(other) == [(2**62, 600)]
    header = rpc_pb2.LeaseKeepAliveResponse.FromString(one.replies[0]).header
    assert (header.revision, header.cluster_id, header.member_id) == (4, 7, 1)


def test_answers_keep_their_order_also_where_questions_overtake_each_other() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    ((first, _),) = alive.asked()
    alive.say(call, 2)
    ((second, _),) = alive.asked()
    alive.answer(second, 5)
    assert told(call) == []
    alive.answer(first, 6)
    assert told(call) == [(1, 6), (2, 5)]


def test_h7_what_comes_while_questions_are_under_way_goes_with_one_asked_later() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    ((first, _),) = alive.asked()
    alive.say(call, 2)
    ((second, _),) = alive.asked()
    alive.say(call, 3)
    alive.say(call, 4)
    assert alive.asked() == []
    alive.answer(first, 5)
    ((third, leases),) = alive.asked()
    assert leases == (3, 4)
    alive.answer(third, 7, 8)
    alive.answer(second, 6)
    assert told(call) == [(1, 5), (2, 6), (3, 7), (4, 8)]


def test_a_question_holds_a_bounded_number_of_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "_MOST", 3)
    alive = Alive()
    call = alive.stream()
    alive.say(call, *range(1, 9))
    (first, a), (_, b) = alive.asked()
    assert (a, b) == ((1, 2, 3), (4, 5, 6))
    alive.answer(first, 9, 9, 9)
    ((_, c),) = alive.asked()
    assert c == (7, 8)


def test_a_lease_that_is_due_is_asked_for_again_alone_and_holds_up_its_own_stream_only() -> None:
    alive = Alive()
    one, other = alive.stream(), alive.stream()
    alive.say(one, 1, 2)
    alive.say(other, 3)
    ((request, _),) = alive.asked()
    alive.answer(request, LEASE_DUE, 5, 6)
    assert told(other) == [(3, 6)]
    assert told(one) == []
    (alone,) = alive.node.take(Method.LEASE_KEEPALIVE)
    assert rpc_pb2.LeaseKeepAliveRequest.FromString(alone.body).ID == 1
    alive.node.ok(alone, 9, b"\x10" + varint(1))
    alive.net.run()
    assert told(one) == [(1, 0), (2, 5)]


def test_no_question_is_the_fronts_own_though_it_learns_of_users_meanwhile() -> None:
    """Nodes judge it as nobody's: no client of it has shown a name."""
    alive = Alive()
    learn = alive.net.context.principals.heard
    one, due = alive.stream(), alive.stream()
    alive.say(due, 2)
    ((request, _),) = alive.asked()
    alive.say(one, 1)
    learn(9, True, 2, b"")
    ((_, leases),) = alive.asked()  # by its number without a principal
    assert leases == (1,)
    alive.answer(request, LEASE_DUE)
    (alone,) = alive.node.take()
    assert alone.method == Method.LEASE_KEEPALIVE


def test_a_client_with_a_certificate_is_one_of_many_while_users_are_not_enabled() -> None:
    """Its keep-alives asked each shard's replica: one that hung ended its stream, and its leases."""
    alive = Alive()
    alive.net.context.placement.running = (0, 1)
    named, plain = alive.stream(), alive.stream()
    named.principal = alive.net.context.principals.of(None, "anna")
    alive.say(named, 1)
    alive.say(plain, 2)
    ((request, leases),) = alive.asked()  # by its number without a principal
    assert leases == (1, 2)
    assert not alive.node.take()
    alive.answer(request, 5, 6)
    assert (told(named), told(plain)) == ([(1, 5)], [(2, 6)])


def test_a_client_with_a_certificate_is_judged_where_users_are_enabled_before_its_front_knows() -> None:
    alive = Alive()
    named, plain = alive.stream(), alive.stream()
    named.principal = alive.net.context.principals.of(None, "anna")
    alive.say(named, 1)
    alive.say(plain, 2)
    ((request, _),) = alive.asked()
    alive.node.answer(request.rid, Status.ERROR, EtcdError(errors.USER_EMPTY).encode())
    alive.net.run()
    assert plain.status == (errors.USER_EMPTY.code, errors.USER_EMPTY.text)
    (alone,) = alive.node.take()
    assert alone.method == Method.LEASE_KEEPALIVE | SAID
    assert split(alone.body)[0] == Principal(Kind.CERTIFICATE, "anna")
    alive.node.ok(alone, 9, b"\x10" + varint(1) + b"\x18" + varint(5))
    alive.net.run()
    assert told(named) == [(1, 5)]


def test_p3_a_due_lease_of_a_client_with_a_certificate_is_judged_in_each_shard() -> None:
    """Users may be enabled behind the answer: the sequencer would judge the lease's keys of shard 0 alone."""
    alive = Alive()
    alive.net.context.placement.running = (0, 1)
    call = alive.stream()
    call.principal = alive.net.context.principals.of(None, "anna")
    alive.say(call, 1)
    ((request, _),) = alive.asked()
    alive.answer(request, LEASE_DUE)
    assert [asked.method for asked in alive.node.take()] == [Method.READ_INDEX]


def test_a_front_that_learns_of_shards_by_the_answer_asks_these_whether_its_client_may() -> None:
    alive = Alive()
    context = alive.net.context
    context.principals.enabled = True
    call = alive.stream()
    alive.say(call, 1)
    alive.net.run()
    (alone,) = alive.node.take()
    assert alone.method & ~SAID == Method.LEASE_KEEPALIVE
    context.placement.running = (0, 1)
    alive.node.ok(alone, 9, b"\x10" + varint(1) + b"\x18" + varint(5))
    alive.net.run()
    assert told(call) == []
    (question,) = alive.node.take(Method.READ_INDEX | SAID)
    alive.node.index(question, 9)
    alive.net.run()
    (request,) = alive.node.take()
    assert request.method & ~SAID == Method.AUTH_SHOW
    alive.node.answer(request.rid, Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())
    alive.net.run()
    assert (told(call), call.status) == ([], (errors.PERMISSION_DENIED.code, errors.PERMISSION_DENIED.text))


def test_a_stream_that_is_half_closed_ends_after_its_last_answer() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    alive.handler.half_closed(call)
    ((request, _),) = alive.asked()
    assert not call.closed
    alive.answer(request, 5)
    assert call.status == (0, "")


def test_clients_that_have_gone_are_not_asked_for_and_not_told() -> None:
    alive = Alive()
    call, stays = alive.stream(), alive.stream()
    alive.say(call, 1)
    ((request, _),) = alive.asked()
    alive.say(call, 2)
    call.closed = True
    alive.handler.cancelled(call)
    alive.say(stays, 3)
    alive.answer(request, 5)
    assert told(call) == []
    ((_, leases),) = alive.asked()
    assert leases == (3,)


def test_a_question_without_an_answer_ends_the_streams_and_the_next_ones_are_asked() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    alive.net.run()
    alive.net.pass_time(7.3)
    assert call.status == (14, "etcdserver: request timed out")
    alive.node.take()
    after = alive.stream()
    alive.say(after, 2)
    ((request, leases),) = alive.asked()
    assert leases == (2,)
    alive.answer(request, 5)
    assert told(after) == [(2, 5)]


def test_those_that_wait_behind_questions_without_an_answer_have_their_own_time_limit() -> None:
    alive = Alive()
    calls = [alive.stream() for _ in range(3)]
    for call in calls:
        alive.say(call, 1)
        alive.net.run()
    alive.net.pass_time(7.5)
    assert [c.status for c in calls] == [(14, "etcdserver: request timed out")] * 3


def test_a_refusal_ends_each_stream_once() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1, 2)
    ((request, _),) = alive.asked()
    alive.node.answer(request.rid, Status.ERROR, EtcdError(errors.TOO_MANY_REQUESTS).encode())
    alive.net.run()
    assert call.status is not None
    assert call.status[0] == errors.TOO_MANY_REQUESTS.code


def test_the_leader_changes_and_the_question_goes_to_the_new_one() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    ((request, _),) = alive.asked()
    alive.node.not_leader(request, 2, 2)
    alive.net.lead(2, 2)
    second: FakeNode = alive.net.nodes[2]
    (again,) = second.take(Method.LEASE_KEEPALIVES)
    second.ok(again, 4, Struct("<q").pack(5))
    alive.net.run()
    assert told(call) == [(1, 5)]


def test_keep_alives_wait_for_answers_to_those_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """clientv3 sends all that are due each half second, whatever is unanswered. With some thousand leases and
    no leader for seconds, or with 20,000 leases, its stream ended: `too many requests`."""
    monkeypatch.setattr(keepalive, "_MAX_UNANSWERED", 3)
    monkeypatch.setattr(held, "_PAUSE_BYTES", 20)
    alive = Alive()
    call, other = alive.stream(), alive.stream()
    alive.say(call, *range(1, 6))
    assert not call.paused
    alive.say(call, *range(6, 11))
    assert call.paused  # its client is asked for no more
    alive.handler.half_closed(call)
    alive.say(other, 99)
    lists = []
    while questions := alive.asked():
        for request, leases in questions:
            lists.append(leases)
            alive.answer(request, *leases)
        assert len(call.context.waiting) <= 3
    assert lists[0] == (1, 2, 3, 99)
    assert told(other) == [(99, 99)]
    assert told(call) == [(lease, lease) for lease in range(1, 11)]
    assert not call.paused
    assert call.status == (0, "")


def test_a_client_that_goes_leaves_none_of_its_keep_alives_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "_MAX_UNANSWERED", 2)
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1, 2, 3, 4)
    ((request, _),) = alive.asked()
    call.closed = True
    alive.handler.cancelled(call)
    alive.answer(request, 5, 5)
    assert not alive.asked()
    assert not call.context.later


def test_a_mistake_in_a_keep_alive_that_waited_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "_MAX_UNANSWERED", 1)
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1)
    alive.handler.message(call, b"\xff")
    alive.say(call, 2)
    ((request, _),) = alive.asked()
    alive.answer(request, 5)
    assert told(call) == [(1, 5)]
    assert call.status is not None
    assert call.status[0] != 0
    assert not alive.asked()


def test_too_much_that_waits_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed, or as JSON, more comes than the client was asked for."""
    monkeypatch.setattr(keepalive, "_MAX_UNANSWERED", 3)
    monkeypatch.setattr(held, "_MOST_BYTES", 20)
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1, 1, 1, 1, 1)
    assert not call.closed
    alive.say(call, 1)
    assert call.status is not None
    assert call.status[0] == errors.TOO_MANY_REQUESTS.code


def test_odd_requests_are_read_as_protobuf_reads_them() -> None:
    alive = Alive()
    call = alive.stream()
    odd: list[Any] = [b"\x08\x81\x00", b"\x08\x01\x08\x02", b"", b"\x08\x01\x50\x07"]
    for data in odd:
        alive.handler.message(call, data)
    ((request, leases),) = alive.asked()
    assert leases == (1, 2, 0, 1)
    alive.answer(request, 5, 5, 0, 5)
    assert told(call) == [(1, 5), (2, 5), (0, 0), (1, 5)]
    alive.handler.message(call, b"\x08")
    assert call.status is not None
    assert call.status[0] == 13


def test_reading_of_requests_is_kept_for_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "_KNOWN", 10)
    alive = Alive()
    alive.say(alive.stream(), *range(1, 100))
    assert len(alive.handler._known) <= 10


def test_at_a_stop_each_stream_ends_once_it_owes_nothing_and_new_ones_are_sent_elsewhere() -> None:
    alive = Alive()
    idle, busy = alive.stream(), alive.stream()
    alive.say(busy, 1)
    ((request, _),) = alive.asked()
    alive.net.context.stop()
    stopped = (errors.STOPPED.code, errors.STOPPED.text)
    assert idle.status == stopped
    assert not busy.closed
    alive.answer(request, 5)
    assert told(busy) == [(1, 5)]
    assert busy.status == stopped
    assert alive.stream().status == stopped


def test_nothing_of_a_client_that_goes_away_unanswered_is_left_to_the_garbage_collector() -> None:
    alive = Alive()
    with no_garbage("proxy"):
        call = alive.stream()
        alive.say(call, 1, 2)
        asked = alive.asked()
        call.closed = True
        alive.handler.cancelled(call)
        call.connection, call.streams = None, {}  # the fake's own
        del call
        alive.answer(asked[0][0], 60, 60)


def test_only_leases_that_are_there_count_as_renewed() -> None:
    alive = Alive()
    call = alive.stream()
    alive.say(call, 1, 2, 3)
    ((request, _),) = alive.asked()
    alive.answer(request, 5, 0, LEASE_DUE)
    (request,) = alive.node.take(Method.LEASE_KEEPALIVE)
    alive.node.ok(request, 4, rpc_pb2.LeaseKeepAliveResponse(ID=3, TTL=7).SerializeToString())
    alive.net.run()
    assert told(call) == [(1, 5), (2, 0), (3, 7)]
    assert alive.net.context.leases_renewed == 2
