"""Where a front takes the events of its host's watches from."""

from __future__ import annotations

from tests.unit.proxy.fakes import Net


def test_watches_stay_at_home_in_an_election_though_a_link_to_the_new_leader_comes_up() -> None:
    net = Net().started(leader=2)
    net.pass_time(12.0)
    part = net.context.hub.subscribe(b"a", b"b", False, 1).parts[0]
    net.run()
    net.nodes[1].leader = 0  # it has not heard of the new leader yet
    net.nodes[1].say_state()
    net.nodes[3].leader, net.nodes[3].term = 3, 2
    net.cut(2)
    where = set()
    for _ in range(10):
        net.pass_time(0.05)
        where.add(part.link.member_id if part.link is not None else 0)
    assert net.router.routes[0].links[3].up
    assert where == {1}


def test_watches_follow_the_leader_as_often_as_it_changes_while_home_is_cut_off() -> None:
    """They stayed at the first one. Once that stood, they got nothing until home knew a leader."""
    net = Net().started(leader=2)
    net.pass_time(12.0)
    part = net.context.hub.subscribe(b"a", b"b", False, 1).parts[0]
    net.run()
    term = net.nodes[2].term
    net.nodes[1].leader = 0
    net.nodes[1].say_state()
    for leader in (3, 2, 3):
        term += 1
        for node in (net.nodes[2], net.nodes[3]):
            node.leader, node.term = leader, term
            node.say_state()
        net.pass_time(8.0)
        net.nodes[1].say_state()
        assert net.router.routes[0].home is not None
        assert part.link is not None
        assert part.link.member_id == leader


def test_watches_of_a_proxy_leave_a_member_that_installs_a_state() -> None:
    net = Net(own=0)
    for node in net.every.values():
        node.leader, node.term, node.commit, node.applied = 2, 3, 100, 100
    net.nodes[1].commit = net.nodes[1].applied = 0
    net.nodes[2].up = net.nodes[3].up = False
    net.pass_time(0.3)
    part = net.context.hub.subscribe(b"a", b"b", False, 1).parts[0]
    net.run()
    assert part.link is net.nodes[1].link, "no other has answered"
    net.nodes[2].up = net.nodes[3].up = True
    net.pass_time(8.0)
    assert part.link is net.nodes[2].link


def test_watches_stay_at_home_while_its_leading_node_pauses_for_less_than_two_election_timeouts() -> None:
    net = Net().started(leader=1)
    net.pass_time(12.0)
    part = net.context.hub.subscribe(b"a", b"b", False, 1).parts[0]
    net.run()
    net.pass_time(1.5, silent=(1,))
    assert net.router.routes[0].home is None
    assert part.link is net.nodes[1].link
    net.pass_time(1.0)
    assert net.router.routes[0].home is part.link is net.nodes[1].link
