"""Requests find their nodes, once; their clients are always answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pb import rpc_pb2
from cluster.wire.messages import LEADER, LONE_HEAD, Method, Status
from cluster.wire.protobuf import header_prefix, response_header
from proxy.routing.router import READ_ANY, MethodStats, Waiting
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.routing.router.asking import put, read

TIMEOUT_LEADER_FAIL = (14, "etcdserver: request timed out, possibly due to previous leader failure")


def test_a_write_goes_to_the_leader_and_its_answer_is_spliced_behind_the_header() -> None:
    net = Net().started(leader=2)
    stats = MethodStats()
    call = put(net, stats=stats)
    (request,) = net.nodes[2].take()
    assert (request.method, request.body) == (Method.PUT, b"\x0a\x01k")
    assert net.nodes[1].take() == net.nodes[3].take() == []
    net.nodes[2].ok(request, 9, b"tail")
    net.run()
    assert call.replies == [response_header(header_prefix(7, 1), 9, 1) + b"tail"]
    assert stats.ok == 1


def test_the_requests_of_a_tick_leave_as_one_frame() -> None:
    net = Net().started()
    before = net.nodes[1].frames
    for _ in range(100):
        net.router.write(FakeCall(), Method.PUT, b"x", 0, net.router.quiet)
    net.run()
    assert net.nodes[1].frames == before + 1
    assert len(net.nodes[1].take()) == 100


def test_a_write_told_not_leader_is_sent_to_the_leader_that_was_named() -> None:
    net = Net().started(leader=1)
    call = put(net)
    (request,) = net.nodes[1].take()
    net.nodes[1].not_leader(request, 3, 2)
    net.pass_time(0.2, silent=(1, 2, 3))
    (again,) = net.nodes[3].take()
    net.nodes[3].ok(again, 5)
    net.run()
    assert call.status == (0, "")


def test_a_node_that_does_not_know_the_leader_is_not_asked_in_a_loop() -> None:
    net = Net().started(leader=1)
    call = put(net)
    (request,) = net.nodes[1].take()
    frames = net.nodes[1].frames
    net.nodes[1].not_leader(request, 0, 1)
    net.run()
    assert net.nodes[1].frames == frames
    assert not call.closed
    net.lead(2, 2)
    (again,) = net.nodes[2].take()
    net.nodes[2].ok(again, 5)
    net.run()
    assert call.status == (0, "")


def test_requests_wait_for_a_leader_and_are_served_in_order() -> None:
    net = Net()
    net.pass_time(0.3)
    calls = [put(net, body=b"%d" % i) for i in range(3)]
    net.pass_time(2)
    assert not any(c.closed for c in calls)
    net.lead(3, 2)
    assert [r.body for r in net.nodes[3].take()] == [b"0", b"1", b"2"]


def test_a_write_that_no_leader_ever_got_ends_at_the_time_limit_as_etcd_says_it() -> None:
    net = Net()
    net.pass_time(0.3)
    call = put(net)
    net.pass_time(6.8)
    assert not call.closed
    net.pass_time(0.5)
    assert call.status == (4, "context deadline exceeded")


def test_a_write_without_an_answer_times_out_and_its_late_answer_is_dropped() -> None:
    net = Net().started(leader=2)
    call = put(net)
    (request,) = net.nodes[2].take()
    net.pass_time(7.5)
    assert call.status == (14, "etcdserver: request timed out")
    net.nodes[2].ok(request, 5)
    net.run()
    assert call.replies == []


def test_i23_a_write_whose_link_breaks_is_answered_unknown_and_never_sent_again() -> None:
    net = Net().started(leader=2)
    call = put(net)
    assert len(net.nodes[2].take()) == 1
    net.cut(2)
    assert call.status == TIMEOUT_LEADER_FAIL
    net.lead(3, 2)
    net.nodes[2].up = True
    net.pass_time(3)
    assert not any(r.method == Method.PUT for n in net.nodes.values() for r in n.take())


def test_i23_a_write_that_was_sent_is_not_sent_again_by_whatever_way() -> None:
    net = Net().started(leader=2)
    put(net)
    (link,) = [link for route in net.router.routes.values() for link in route.links.values() if link.pending]
    (waiting,) = link.pending.values()
    with pytest.raises(AssertionError, match="I23"):
        net.router.to_leader(waiting)


def test_a_write_that_was_still_in_the_outbox_when_the_link_broke_is_answered_too() -> None:
    net = Net().started(leader=2)
    call = FakeCall()
    net.router.write(call, Method.PUT, b"x", 0, net.router.quiet)
    net.cut(2)
    assert call.status == TIMEOUT_LEADER_FAIL


def test_the_clients_deadline_travels_to_the_node() -> None:
    net = Net().started()
    put(net, FakeCall(deadline=net.loop.now + 1.5))
    (request,) = net.nodes[1].take()
    assert request.timeout_ms == 1500


def test_the_highest_term_decides_who_leads() -> None:
    net = Net().started(leader=3)  # links to the own host and to host 3
    net.nodes[3].leader, net.nodes[3].term = 3, 5
    net.nodes[1].leader, net.nodes[1].term = 1, 4  # led once, cut off since, and does not know it yet
    net.pass_time(0.3)
    assert (net.router.routes[0].leader, net.router.routes[0].term) == (3, 5)
    put(net)
    assert len(net.nodes[3].take(Method.PUT)) == 1


def test_reads_leave_an_own_node_that_is_cut_off_from_a_leader_which_can_be_reached() -> None:
    net = Net().started(leader=3)
    net.nodes[1].leader = 0
    net.pass_time(0.3)
    call = read(net, serializable=True)
    net.run()
    (request,) = net.nodes[3].take(Method.RANGE)
    net.nodes[3].ok(request, 1)
    net.run()
    assert call.status == (0, "")
    net.nodes[1].leader = 3
    net.pass_time(0.3)
    read(net, serializable=True)
    net.run()
    assert len(net.nodes[1].take(Method.RANGE)) == 1


def test_a_stop_answers_everything_that_is_open() -> None:
    net = Net().started(leader=1)
    sent = put(net)
    net.router.close()
    assert sent.status == TIMEOUT_LEADER_FAIL
    leaderless = Net()
    leaderless.pass_time(0.2)
    queued = put(leaderless)
    leaderless.router.close()
    assert queued.status == (14, "etcdserver: server stopped")


def test_a_transfer_that_was_sent_may_have_happened_when_the_host_stops() -> None:
    """A leader may be asked twice for it, so it waits for the next one once its link has ended."""
    net = Net().started(leader=1)
    call = FakeCall()
    net.router.ask(call, Method.TRANSFER_LEADER, bytes(8), 0, MethodStats())
    net.run()
    net.router.close()
    assert call.status == TIMEOUT_LEADER_FAIL


def test_what_a_failed_request_asks_of_another_shard_as_the_host_stops_is_answered_too() -> None:
    net = Net(shards=2).started(leader=1)
    call = FakeCall()

    def failed(*_: Any) -> None:
        net.router.write(call, Method.PUT, b"x", 0, net.router.quiet)

    net.router.write(FakeCall(), Method.PUT, b"x", 1, net.router.quiet, failed)
    net.run()
    net.router.close()
    assert call.status == (14, "etcdserver: server stopped")


def test_the_queue_for_a_leader_is_bounded() -> None:
    net = Net()
    net.pass_time(0.2)
    calls = [FakeCall() for _ in range(20_001)]
    for call in calls:
        net.router.write(call, Method.PUT, b"x", 0, net.router.quiet)
    assert [c.status for c in calls if c.closed] == [(2, "etcdserver: too many requests")]


class Cluster:
    """Nodes that log writes, for the test of I23."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.logged: list[bytes] = []
        self.calls: list[tuple[bytes, FakeCall]] = []
        self.leader, self.term = 1, 1

    def write(self) -> None:
        body = b"%d" % len(self.calls)
        call = FakeCall()
        self.calls.append((body, call))
        self.net.router.write(call, Method.PUT, body, 0, self.net.router.quiet)

    def elect(self, member: int) -> None:
        self.leader, self.term = member, self.term + 1
        for node in self.net.nodes.values():
            if node.up:
                node.leader, node.term = member, self.term
                node.say_state()

    def serve(self, member: int, answer: bool) -> None:
        node = self.net.nodes[member]
        for request in node.take(Method.PUT):
            if member == self.leader and node.up:
                self.logged.append(request.body)
                if answer:
                    node.ok(request, 2)
            else:
                node.not_leader(request, node.leader if node.leader != member else 0, node.term)

    def restart(self, member: int) -> None:
        self.net.nodes[member].up = True


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.just(0)),
        st.tuples(
            st.sampled_from(["elect", "serve", "swallow", "cut", "restart", "tick"]), st.integers(1, 3)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_i23_whatever_happens_no_write_is_logged_twice_and_each_is_answered_once(
    steps: list[tuple[str, int]],
) -> None:
    net = Net().started(leader=1)
    cluster = Cluster(net)
    actions: dict[str, Any] = {
        "write": lambda m: cluster.write(), "elect": cluster.elect, "serve": lambda m: cluster.serve(m, True),
        "swallow": lambda m: cluster.serve(m, False), "cut": net.cut, "restart": cluster.restart,
        "tick": lambda m: net.pass_time(0.1), "run": lambda m: net.run(),
    }
    for name, member in steps:
        actions[name](member)
    for member in net.nodes:
        cluster.restart(member)
    cluster.elect(2)
    for _ in range(40):
        net.pass_time(0.3)
        for member in net.nodes:
            cluster.serve(member, True)
        net.run()
    assert len(cluster.logged) == len(set(cluster.logged))
    for body, call in cluster.calls:
        assert call.status is not None, body  # FakeCall asserts that nothing is answered twice
        if call.status == (0, ""):
            assert body in cluster.logged
    net.router.close()


def test_a_put_request_is_what_the_client_sent() -> None:
    net = Net().started(leader=1)
    body = rpc_pb2.PutRequest(key=b"a", value=b"b").SerializeToString()
    put(net, body=body)
    assert net.nodes[1].take()[0].body == body


def test_a_write_is_alone_when_nothing_is_under_way_and_nothing_was_for_the_last_few() -> None:
    net = Net().started(leader=2)
    assert [net.router.lone() for _ in range(4)] == [False, False, False, True]
    put(net)
    assert not net.router.lone()
    (request,) = net.nodes[2].take()
    net.nodes[2].ok(request, 9)
    net.run()
    assert [net.router.lone() for _ in range(4)] == [False, False, False, True]


def test_a_link_with_much_under_way_gathers_what_comes_within_a_moment() -> None:
    net = Net().started(leader=2)
    for _ in range(32):
        put(net)
    assert len(net.nodes[2].take()) == 32  # each left at once
    put(net)
    put(net)
    assert net.nodes[2].take() == []
    (flush,) = net.loop.later
    flush()
    net.run()
    assert len(net.nodes[2].take()) == 2


def test_a_lone_put_that_would_have_to_wait_at_the_sequencer_goes_to_its_leader() -> None:
    net = Net().started(leader=2)
    call = FakeCall()
    net.router.write(call, Method.LONE, LONE_HEAD.pack(0) + b"\x0a\x01k", 0, net.router.quiet)
    net.run()
    (request,) = net.nodes[2].take()
    net.nodes[2].answer(request.rid, Status.ELSEWHERE, LEADER.pack(0, 0))
    net.run()
    (request,) = net.nodes[2].take()
    assert (request.method, request.body) == (Method.PUT, b"\x0a\x01k")
    net.nodes[2].ok(request, 9)
    net.run()
    assert call.status == (0, "")


def test_links_that_nobody_needs_end_a_while_after_an_election_and_are_made_again_when_one_is_lost() -> None:
    net = Net().started(leader=2)
    route = net.router.routes[0]
    net.pass_time(9.0)
    assert set(route.links) == {1, 2, 3}
    net.pass_time(2.0)
    assert set(route.links) == {1, 2}  # the own host's, and the leader's
    net.nodes[1].leader = 0
    net.cut(2)
    net.pass_time(0.5)
    assert set(route.links) >= {1, 3}  # nobody knows a leader: whoever is first to know one tells
    net.lead(3, 2)
    net.pass_time(0.1)
    assert route.leader_link is not None
    assert route.leader_link.member_id == 3


def test_a_link_is_kept_while_something_is_asked_on_it_or_the_own_node_knows_no_leader() -> None:
    net = Net().started(leader=2)
    route = net.router.routes[0]
    net.nodes[1].leader = 0
    net.pass_time(12.0)
    assert set(route.links) == {1, 2, 3}
    net.nodes[1].leader = 2
    question = Waiting(None, Method.STATUS, b"", 0, READ_ANY, net.loop.now, 60.0, net.router.quiet)
    net.router.send(route.links[3], question.calls(lambda *_: None))
    net.pass_time(1.0)
    assert 3 in route.links
    net.nodes[3].ok(net.nodes[3].take()[0])
    net.pass_time(1.0)
    assert set(route.links) == {1, 2}


def test_a_leader_that_only_a_cut_off_learner_does_not_know_is_found() -> None:
    """A learner stands for no election, and never forgets its leader. Without other links, a front has its
    word alone."""
    net = Net().started(leader=2)
    route = net.router.routes[0]
    net.pass_time(12.0)
    assert set(route.links) == {1, 2}
    net.cut(2)
    net.nodes[3].leader, net.nodes[3].term = 3, 2  # the own host's node goes on naming 2
    net.pass_time(20.0)
    assert route.leader_link is not None
    assert route.leader_link.member_id == 3
