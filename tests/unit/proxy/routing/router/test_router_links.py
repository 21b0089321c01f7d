"""Links of a front: made, left alone, ended and made again, as the router needs them."""

from __future__ import annotations

from cluster.wire.messages import Method, Status
from proxy.routing.links import Link
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.routing.router.asking import put, read

TIMEOUT_LEADER_FAIL = (14, "etcdserver: request timed out, possibly due to previous leader failure")


def test_a_silent_link_is_dead_after_an_election_timeout_and_is_opened_anew() -> None:
    net = Net().started(leader=2)
    sessions = net.sessions
    net.pass_time(1.3, silent=(1,))
    assert net.sessions > sessions


def test_frames_of_a_link_that_has_ended_are_counted_on() -> None:
    """A scraper takes a counter that falls for one that began anew, and all of it for new."""
    net = Net().started(leader=2)
    for _ in range(5):
        put(net)
    net.pass_time(1.0)
    before = net.router.statistics()
    assert before["frames_sent"] >= 3
    assert before["frames_received"] >= 10
    for link in tuple(net.router.routes[0].links.values()):
        link.close("cut")
    after = net.router.statistics()
    assert all(after[name] >= before[name] for name in ("frames_sent", "frames_received"))
    net.pass_time(1.0)
    assert net.router.statistics()["frames_received"] > after["frames_received"]


def test_a_leader_that_stands_still_for_a_second_answers_what_it_was_sent() -> None:
    """Nobody else was elected. It gets nothing new meanwhile: another leader may take that."""
    net = Net().started(leader=2)
    sent = put(net)
    sessions = net.sessions
    net.pass_time(1.3, silent=(2,))
    (request,) = net.nodes[2].take(Method.PUT)
    waits = put(net)
    assert not net.nodes[2].take(Method.PUT)
    net.nodes[2].ok(request)
    net.pass_time(0.2)
    assert sent.status == (0, "")
    assert net.sessions == sessions
    (request,) = net.nodes[2].take(Method.PUT)
    net.nodes[2].ok(request)
    net.run()
    assert waits.status == (0, "")


def test_a_leader_that_stands_still_for_two_election_timeouts_is_given_up() -> None:
    net = Net().started(leader=2)
    sent = put(net)
    sessions = net.sessions
    net.pass_time(2.3, silent=(2,))
    assert sent.status == TIMEOUT_LEADER_FAIL
    assert net.sessions > sessions


def test_a_node_whose_large_frame_is_on_its_way_is_not_silent() -> None:
    """100 answers of a megabyte take seconds by a slow network, and nothing overtakes them."""
    net = Net().started(leader=2)
    sent, sessions, node = put(net), net.sessions, net.nodes[2]
    for megabytes in range(1, 5):
        node.coming = megabytes << 20
        net.pass_time(0.7, silent=(2,))
    assert (sent.status, net.sessions) == (None, sessions)
    net.pass_time(3.5, silent=(2,))
    assert sent.status == TIMEOUT_LEADER_FAIL


def test_a_silent_leader_is_given_up_once_another_one_is_elected() -> None:
    """What was sent has an unknown fate; what waited goes to the new one."""
    net = Net().started(leader=2)
    sent = put(net)
    net.pass_time(1.2, silent=(2,))
    waits = put(net)
    for member in (1, 3):
        net.nodes[member].leader, net.nodes[member].term = 3, 2
    net.pass_time(0.3, silent=(2,))
    assert sent.status == TIMEOUT_LEADER_FAIL
    (request,) = net.nodes[3].take(Method.PUT)
    net.nodes[3].ok(request)
    net.run()
    assert waits.status == (0, "")


def test_a_link_is_not_silent_while_the_fronts_own_loop_was_held() -> None:
    """What came in a turn of two seconds is read in the next: the sweep comes before that."""
    net = Net().started(leader=2)
    call = put(net)
    sessions = net.sessions
    net.loop.now += 2.0
    net.router.sweep()
    net.pass_time(1.3)
    assert (call.status, net.sessions) == (None, sessions)
    net.loop.now += 2.0
    net.router.sweep()
    net.pass_time(2.3, silent=(2,))
    assert call.status == TIMEOUT_LEADER_FAIL


def test_a_leader_that_stands_still_is_waited_for_while_the_fronts_own_loop_is_held() -> None:
    """A machine that stands still for seconds holds both, and the front may go on first."""
    net = Net().started(leader=2)
    sent = put(net)
    sessions = net.sessions
    net.pass_time(1.3, silent=(2,))
    net.loop.now += 2.0
    net.router.sweep()
    net.pass_time(0.3, silent=(2,))
    assert (sent.status, net.sessions) == (None, sessions)
    (request,) = net.nodes[2].take(Method.PUT)
    net.nodes[2].ok(request)
    net.pass_time(0.2)
    assert (sent.status, net.sessions) == ((0, ""), sessions)


def test_who_has_just_been_elected_is_tried_at_once_however_often_it_was_tried_in_vain() -> None:
    """After a crash of all hosts they come up one after the other, and fronts have tried them for a while."""
    net = Net()
    for member in (2, 3):
        net.nodes[member].up = False
    for _ in range(6):
        net.pass_time(1.5)
        for link in list(net.router.routes[0].links.values()):
            if not link.up:
                link.close("connection refused")
    put(net, call := FakeCall())
    net.nodes[2].up = True
    sessions = net.sessions
    net.run()
    assert net.sessions == sessions, "it is not time to try again"
    net.nodes[1].leader, net.nodes[1].term = 2, 5
    net.nodes[2].leader, net.nodes[2].term = 2, 5
    net.nodes[1].say_state()
    net.run()
    assert net.sessions == sessions + 1
    assert [r.method for r in net.nodes[2].take()] == [Method.PUT]
    assert not call.closed


def test_an_attempt_to_connect_from_before_it_led_does_not_hold_up_the_link_to_a_leader() -> None:
    """Nobody says that a connection was refused: an attempt ends after an election timeout."""
    net = Net()
    net.nodes[2].up = net.nodes[3].up = False
    net.pass_time(0.1)
    put(net, call := FakeCall())
    attempt = net.router.routes[0].links[2]
    assert not attempt.greeted
    net.nodes[2].up = True
    net.nodes[1].leader = net.nodes[2].leader = 2
    net.nodes[1].term = net.nodes[2].term = 5
    net.nodes[1].say_state()
    net.run()
    assert attempt.closed
    assert [r.method for r in net.nodes[2].take()] == [Method.PUT]
    assert not call.closed


def test_a_frame_out_of_sequence_ends_the_link() -> None:
    net = Net().started(leader=1)
    node = net.nodes[1]
    link = node.link
    assert link is not None
    node._sent += 1
    node.say_state()
    net.run()
    assert link.closed


def test_a_refused_link_is_not_used() -> None:
    net = Net().started(leader=1)
    link = net.nodes[1].link
    net.nodes[1].answer(0, Status.REFUSED, b"cluster ID mismatch")
    net.run()
    assert link is not None
    assert link.closed


def test_a_link_whose_table_cannot_be_read_ends_and_its_requests_have_an_answer() -> None:
    net = Net().started(leader=1)
    link = net.nodes[1].link
    assert link is not None
    sent = put(net)
    (request,) = net.nodes[1].take(Method.PUT)
    net.nodes[1].answer(0, Status.PLACEMENT, b"\2" + bytes(40))
    net.nodes[1].ok(request, 2)
    net.run()
    assert link.closed
    assert sent.status == TIMEOUT_LEADER_FAIL, "a write of a lost link"
    assert "form 2" in net.router.routes[0].troubles[1]


def test_reads_go_to_the_leader_while_the_own_node_is_far_behind() -> None:
    """A host that was down for long serves at once: its node reads its log for as long as that takes."""
    net = Net().started(leader=2)
    route = net.router.routes[0]
    assert route.replica is net.nodes[1].link

    def behind(entries: int) -> Link | None:
        net.nodes[1].commit, net.nodes[1].applied = 5000, 5000 - entries
        for node in (net.nodes[2], net.nodes[3]):
            node.commit = node.applied = 5000
        net.pass_time(0.3)
        return route.replica

    assert behind(1000) is net.nodes[1].link, "it is as far as STATEs can tell"
    assert behind(1001) is net.nodes[2].link
    call = read(net, serializable=True)
    net.run()
    (asked,) = net.nodes[2].take(Method.RANGE)
    net.nodes[2].ok(asked, 4)
    net.run()
    assert call.status == (0, "")
    assert behind(101) is net.nodes[2].link, "reads do not go to and fro"
    assert behind(100) is net.nodes[1].link
    assert behind(0) is net.nodes[1].link
    behind(2000)
    net.lead(0, 3)
    assert route.replica is net.nodes[1].link, "without a leader it is the nearest"
