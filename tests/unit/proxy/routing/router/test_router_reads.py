"""Reads find a replica that may answer: read indexes, the own node, long answers."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.faults import faults
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, READ, Method, Status
from cluster.wire.protobuf import header_prefix, response_header
from proxy.routing.reads import read_index, recent
from proxy.routing.router import MethodStats, Waiting
from proxy.services import kv
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.routing.router.asking import read


def test_a_read_whose_link_breaks_is_asked_elsewhere() -> None:
    net = Net().started(leader=2)
    call = read(net, serializable=True)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1
    net.cut(1)
    (again,) = net.nodes[2].take(Method.RANGE)
    net.nodes[2].ok(again, 4)
    net.run()
    assert call.status == (0, "")


@pytest.mark.parametrize("serializable", [False, True])
def test_a_large_read_whose_link_breaks_halfway_is_asked_elsewhere(serializable: bool) -> None:
    """Nothing of it has gone to the client: what had come is dropped, and held no longer."""
    net = Net().started(leader=2)
    call = read(net, serializable)
    net.run()
    if not serializable:
        (question,) = net.nodes[2].take(Method.READ_INDEX)
        net.nodes[2].index(question, 17, 4)
        net.run()
    (request,) = net.nodes[1].take(Method.RANGE)
    net.nodes[1].answer(request.rid, Status.PARTIAL, HEAD.pack(4, 1) + b"some rows")
    net.run()
    assert call.gathered
    net.cut(1)
    (again,) = net.nodes[2].take(Method.RANGE)
    assert again.body == request.body
    assert (call.gathered, len(net.router.pieces)) == (0, 0)
    net.nodes[2].answer(again.rid, Status.PARTIAL, HEAD.pack(5, 1) + b"the ")
    net.nodes[2].answer(again.rid, Status.OK, b"whole")
    net.run()
    assert call.replies == [response_header(header_prefix(7, 1), 5, 1) + b"the whole"]


def test_a_large_read_whose_links_break_is_asked_again_within_its_time_limit() -> None:
    """It may be its answer that breaks links."""
    net = Net().started(leader=2)
    call = read(net, serializable=True)
    for _ in range(4):
        net.pass_time(0.1)
        asked = {member: node.take(Method.RANGE) for member, node in net.nodes.items()}
        ((member, (request,)),) = [(member, found) for member, found in asked.items() if found]
        net.nodes[member].answer(request.rid, Status.PARTIAL, HEAD.pack(4, 1) + b"half")
        net.pass_time(net.router.limit_s / 4)
        assert call.status is None
        net.cut(member)
        net.nodes[member].up = True
    assert call.status == (14, "etcdserver: request timed out, possibly due to previous leader failure")


def test_keys_of_a_lease_whose_link_breaks_halfway_are_asked_for_again() -> None:
    """A question to the leader that has put together some of its answer itself."""
    net = Net().started(leader=2)
    told: list[bytes] = []

    def answered(waiting: Waiting, status: int, body: bytes) -> None:
        waiting.pieces = [*(waiting.pieces or ()), body]
        if status == Status.OK:
            told.append(b"".join(waiting.pieces))

    net.router.ask(FakeCall(), Method.LEASE_TTL, b"", 0, net.router.quiet, answered)
    net.run()
    (request,) = net.nodes[2].take(Method.LEASE_TTL)
    net.nodes[2].answer(request.rid, Status.PARTIAL, b"half")
    net.run()
    net.cut(2)
    net.lead(3, 2)
    (again,) = net.nodes[3].take(Method.LEASE_TTL)
    net.nodes[3].answer(again.rid, Status.PARTIAL, b"the ")
    net.nodes[3].answer(again.rid, Status.OK, b"whole")
    net.run()
    assert told == [b"the whole"]


def test_reads_of_a_tick_share_one_read_index_question_and_then_go_to_the_own_node() -> None:
    net = Net().started(leader=2)
    calls = [read(net) for _ in range(10)]
    net.run()
    (question,) = net.nodes[2].take()
    assert question.method == Method.READ_INDEX
    net.nodes[2].index(question, 17)
    net.run()
    ranges = net.nodes[1].take(Method.RANGE)
    assert len(ranges) == 10
    assert {READ.unpack_from(r.body) for r in ranges} == {(17, 0)}
    assert all(r.body[READ.size:] == b"\x0a\x01k" for r in ranges)
    for request in ranges:
        net.nodes[1].ok(request, 5)
    net.run()
    assert all(c.status == (0, "") for c in calls)


class Nameless:
    """What a client shows, if this program has a fault in reading it."""

    def said(self) -> bytes:
        raise ValueError("no name")


@pytest.mark.parametrize("serializable", [False, True])
def test_a_fault_in_sending_one_read_ends_no_others_of_its_batch(serializable: bool) -> None:
    net = Net().started(leader=2)
    if serializable:  # they wait for the replica to have what was shown
        net.router.highest = 50
    calls = [FakeCall() for _ in range(4)]
    calls[1].principal = Nameless()
    for call in calls:
        net.router.read(call, Method.RANGE, b"\x0a\x01k", 0, serializable, net.router.quiet)
    net.run()
    if serializable:
        net.nodes[1].watermark(50)
    else:
        (question,) = net.nodes[2].take()
        net.nodes[2].index(question, 17)
    net.run()
    for request in net.nodes[1].take(Method.RANGE):
        net.nodes[1].ok(request, 50)
    net.run()
    internal = (errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text)
    assert [call.status for call in calls] == [(0, ""), internal, (0, ""), (0, "")]
    assert [where for where, _ in faults.take()] == ["naming a client"]
    link = net.nodes[1].link
    assert link is not None
    assert not link.pending


def test_h2_a_read_that_arrives_during_a_question_belongs_to_the_next_one() -> None:
    net = Net().started(leader=2)
    first = read(net)
    net.run()
    (question,) = net.nodes[2].take()
    second = read(net)
    net.run()
    (later,) = net.nodes[2].take()
    net.nodes[2].index(question, 10)
    net.run()
    (served,) = net.nodes[1].take(Method.RANGE)
    net.nodes[1].ok(served, 3)
    net.run()
    assert first.status == (0, "")
    assert not second.closed
    net.nodes[2].index(later, 11)
    net.run()
    (served,) = net.nodes[1].take(Method.RANGE)
    assert READ.unpack_from(served.body)[0] == 11


def test_questions_under_way_are_bounded_and_the_reads_behind_them_are_asked_for_together() -> None:
    net = Net().started(leader=2)
    for _ in range(30):
        read(net)
        net.run()
    questions = net.nodes[2].take()
    assert len(questions) == 4
    for question in questions:
        net.nodes[2].index(question, 1)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 4
    (last,) = net.nodes[2].take()
    net.nodes[2].index(last, 2)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 26


def test_reads_that_wait_for_a_read_index_or_for_the_replica_are_bounded(
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(read_index, "_MOST_WAITING", 3)
    monkeypatch.setattr(recent, "_LIMIT", 3)
    net = Net().started()
    for _ in range(4):
        net.router.read(FakeCall(), Method.RANGE, b"", 0, False, MethodStats())
        net.run()
    calls = [FakeCall() for _ in range(4)]
    for call in calls:
        net.router.read(call, Method.RANGE, b"", 0, False, MethodStats())
    assert [call.status for call in calls] == [None] * 3 + [(2, "etcdserver: too many requests")]
    net.router.highest = 99  # more than the replica has
    calls = [FakeCall() for _ in range(4)]
    for call in calls:
        net.router.read(call, Method.RANGE, b"", 0, True, MethodStats())
    assert [call.status for call in calls] == [None] * 3 + [(2, "etcdserver: too many requests")]


def test_a_read_index_question_survives_the_loss_of_the_leader() -> None:
    net = Net().started(leader=2)
    call = read(net)
    net.run()
    net.cut(2)
    net.lead(3, 2)
    (question,) = net.nodes[3].take(Method.READ_INDEX)
    net.nodes[3].index(question, 4)
    net.run()
    (served,) = net.nodes[1].take(Method.RANGE)
    net.nodes[1].ok(served, 5)
    net.run()
    assert call.status == (0, "")


def test_a_long_answer_comes_in_parts_and_leaves_whole() -> None:
    net = Net().started(leader=1)
    call = read(net, serializable=True)
    net.run()
    (request,) = net.nodes[1].take()
    state = (6).to_bytes(8, "little") + (1).to_bytes(8, "little")
    net.nodes[1].answer(request.rid, Status.PARTIAL, state + b"ab")
    net.nodes[1].answer(request.rid, Status.PARTIAL, b"cd")
    net.nodes[1].answer(request.rid, Status.OK, b"ef")
    net.run()
    assert call.replies == [response_header(header_prefix(7, 1), 6, 1) + b"abcdef"]


def test_a_read_whose_client_has_gone_is_cancelled_at_the_node() -> None:
    net = Net().started(leader=1)
    call = read(net, serializable=True)
    net.run()
    (request,) = net.nodes[1].take()
    call.closed = True
    net.pass_time(0.1)
    (cancel,) = net.nodes[1].take(Method.CANCEL)
    assert cancel.rid == request.rid


def behind_a_hung_disk(net: Net, member: int) -> None:
    """Its node knows what is committed, and applies none of it."""
    for node in net.every.values():
        node.commit = 100
        node.applied = 50 if node.member == member else 100


def test_a_proxy_leaves_a_replica_that_applies_nothing() -> None:
    net = Net(own=0).started(leader=1)
    assert net.router.routes[0].replica is net.nodes[1].link
    net.lead(2, 2)
    call = read(net, serializable=True)
    net.run()
    (_, old) = (net.nodes[1].take(Method.RANGE), net.nodes[1].link)
    behind_a_hung_disk(net, 1)
    net.pass_time(1.9)
    assert net.router.routes[0].replica is old, "it may go on"
    net.pass_time(0.5)
    assert net.router.routes[0].replica is net.nodes[2].link
    (again,) = net.nodes[2].take(Method.RANGE)
    net.nodes[2].ok(again, 4)
    net.run()
    assert call.status == (0, "")
    sessions = net.sessions
    net.pass_time(5.0)
    assert net.sessions == sessions, "its link stays, for nothing goes there"
    assert net.router.routes[0].replica is net.nodes[2].link


@pytest.mark.parametrize(("own", "stands"), [(0, (1, 2, 3)), (1, (1,))])
def test_a_replica_stays_where_the_leader_applies_nothing_either_and_at_its_host(
    own: int, stands: tuple[int, ...]
) -> None:
    net = Net(own=own).started(leader=1)
    net.lead(2, 2)
    for node in net.every.values():
        node.commit, node.applied = 100, 50 if node.member in stands else 100
    net.pass_time(5.0)
    assert net.router.routes[0].replica is net.nodes[1].link


@pytest.mark.parametrize("leader", [0, 2])  # there is none for a while; or all apply something long
def test_a_replica_stays_that_goes_on_a_little_later_than_the_leader(leader: int) -> None:
    net = Net(own=0).started(leader=1)
    net.lead(2, 2)
    for node in net.every.values():
        node.commit, node.applied, node.leader = 100, 99, leader
    net.pass_time(5.0)
    for node in net.every.values():
        if node.member != 1:
            node.applied, node.leader, node.term = 100, 2, 3
    net.pass_time(0.6)
    assert net.router.routes[0].replica is net.nodes[1].link


def test_a_proxy_reads_at_no_member_that_installs_a_state() -> None:
    """A member that was just added has committed nothing by its own word, and so lacks nothing. A proxy that
    heard of it first asked there until it was complete: reads timed out, or found no keys."""
    net = Net(own=0)
    for node in net.every.values():
        node.leader, node.term, node.commit, node.applied = 2, 3, 100, 100
    net.nodes[1].commit = net.nodes[1].applied = 0
    net.nodes[2].up = net.nodes[3].up = False
    net.pass_time(0.3)
    route = net.router.routes[0]
    assert route.replica is net.nodes[1].link, "no other has answered"
    net.nodes[2].up = net.nodes[3].up = True
    net.pass_time(5.0)
    assert route.replica is net.nodes[2].link, "the leader"
    link = net.nodes[2].link
    assert link is not None
    net.nodes[2].up = False
    link.close("the host ends")
    net.run()
    assert route.replica is net.nodes[3].link, "the member that has applied most"


def test_a_proxy_leaves_a_replica_that_comes_to_install_a_state() -> None:
    """A member whose log the leader has no more: by its own word it lacks nothing."""
    net = Net(own=0).started(leader=1)
    net.lead(2, 2)
    for _ in range(4):
        net.nodes[2].commit = net.nodes[2].applied = net.nodes[2].applied + 1
        net.pass_time(0.5)
    assert net.router.routes[0].replica is net.nodes[1].link, "it may go on"
    net.pass_time(0.5)
    assert net.router.routes[0].replica is net.nodes[2].link


def test_a_replica_that_applies_slowly_stays_and_so_does_one_while_the_loop_of_its_proxy_was_held() -> None:
    net = Net(own=0).started(leader=1)
    net.lead(2, 2)
    behind_a_hung_disk(net, 1)
    for _ in range(4):
        net.pass_time(1.5)
        net.nodes[1].applied += 1
        net.nodes[1].say_state()
    link = net.router.routes[0].replica
    net.loop.now += 5.0
    net.nodes[1].say_state()
    net.run()
    net.router.sweep()
    net.nodes[1].applied += 1
    net.pass_time(0.5)
    assert net.router.routes[0].replica is link is net.nodes[1].link


def test_a_replica_whose_state_waits_behind_a_large_answer_stays() -> None:
    net = Net(own=0).started(leader=1)
    net.lead(2, 2)
    for _ in range(50):
        for node in net.every.values():
            if node.member != 1:
                node.commit = node.applied = node.applied + 1
        net.nodes[1].coming += 1 << 20
        net.pass_time(0.1, silent=(1,))
    assert net.router.routes[0].replica is net.nodes[1].link


def test_a_stop_without_a_leader_answers_every_read() -> None:
    """From the fifth question for the index on, and those that wait for this host's replica, got none."""
    net = Net().started(leader=2)
    for node in net.every.values():
        node.leader = 0
        node.say_state()
    net.run()
    calls = [FakeCall() for _ in range(8)]
    for call in calls[1:]:
        net.router.get(call, b"\n\x01a", b"a", False, 0, MethodStats())
        net.run()
    net.router.recent.knows = False
    net.router.get(calls[0], b"\n\x01a8\x01", b"a", True, 0, MethodStats())
    net.run()
    net.router.close()
    net.run()
    assert {call.status for call in calls} == {(14, "etcdserver: server stopped")}


@pytest.mark.parametrize("waits_for", ["the order", "the replicas", "a replica that is gone"])
def test_a_stop_answers_serializable_reads_of_one_shard_and_of_several(waits_for: str) -> None:
    net = Net(shards=2).started(leader=2)
    for node in net.every.values():
        node.leader = 0
        node.say_state()
        if node.shard and waits_for == "a replica that is gone":
            net.cut(node.member, node.shard)
    net.run()
    net.router.recent.knows = waits_for != "the order"
    if waits_for == "the replicas":
        net.router.highest = 10_000
    calls = [FakeCall(), FakeCall()]
    for call, last in zip(calls, (b"", b"\0"), strict=True):
        asked = rpc_pb2.RangeRequest(key=b"\0", range_end=last, serializable=True)
        kv._range(net.context)(call, asked.SerializeToString())
        net.run()
    net.pass_time(0.1)
    net.router.close()
    net.run()
    assert [call.status and call.status[0] for call in calls] == [14, 14]
