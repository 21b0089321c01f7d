"""By whose list of the members a front goes."""

from __future__ import annotations

from cluster.members.table import Table
from cluster.settings import Peer
from cluster.wire.messages import Status
from tests.unit.proxy.fakes import Net


def front(own: int) -> Net:
    """Of a cluster of three hosts; two more may come."""
    net = Net(hosts=5, own=own)
    net.nodes[4].up = net.nodes[5].up = False
    net.started(leader=2)
    tells(net, own or 2, 1, 2, 3)
    assert known(net) == [1, 2, 3]
    return net


def tells(net: Net, node: int, *members: int, applied: int = 1) -> None:
    table = Table([Peer(m, f"h{m}", "127.0.0.1", m) for m in members])
    net.nodes[node].applied = applied
    net.nodes[node].answer(0, Status.MEMBERS, table.encode_all())
    net.run()


def known(net: Net) -> list[int]:
    assert sorted(net.router.routes[0].members) == sorted(net.router.members.hosts)
    return sorted(net.router.members.hosts)


def test_a_front_goes_by_its_own_node_while_that_answers() -> None:
    net = front(own=1)
    tells(net, 2, 1, 2, 3, 4, applied=9)
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3]
    tells(net, 1, 1, 2, 3, 5)
    assert known(net) == [1, 2, 3, 5]


def test_a_front_whose_own_node_stands_still_goes_by_what_others_tell_and_have_told() -> None:
    net = front(own=1)
    tells(net, 2, 1, 2, 3, 4, applied=9)
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3], "its link has not ended yet"
    net.cut(1)
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3, 4]
    tells(net, 2, 1, 2, 3, 4, 5, applied=10)
    assert known(net) == [1, 2, 3, 4, 5]
    net.nodes[1].up = True
    net.pass_time(0.5)
    tells(net, 1, 1, 2, 3, 5)
    assert known(net) == [1, 2, 3, 5], "it goes on"


def test_a_front_whose_own_node_is_cut_off_goes_by_the_newest_list() -> None:
    net = front(own=1)
    tells(net, 2, 1, 2, 3, 4, applied=9)
    net.nodes[1].leader = 0
    net.pass_time(0.5)
    assert known(net) == [1, 2, 3, 4]
    net.nodes[1].leader = 2
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3]


def test_no_list_goes_back_to_that_of_a_node_that_is_behind() -> None:
    net = front(own=0)
    tells(net, 2, 1, 2, 3, 4, applied=9)
    net.pass_time(0.2)
    tells(net, 3, 1, 2, 3, applied=5)
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3, 4]
    net.cut(2)
    net.pass_time(2.0)
    assert known(net) == [1, 2, 3, 4], "nor once the other node has ended"


def test_a_list_counts_once_its_node_says_that_it_is_as_far() -> None:
    net = front(own=0)
    tells(net, 2, 1, 2, 3, 4, applied=9)
    net.pass_time(0.2)
    net.cut(2)
    tells(net, 3, 1, 2, 3, 4, 5, applied=12)
    assert known(net) == [1, 2, 3, 4], "it has said 1 so far"
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3, 4, 5]


def test_two_lists_that_are_equally_new_do_not_take_turns() -> None:
    """Each host names members as it was started with. With each STATE a proxy took the other one's list."""
    net, names = front(own=0), list[str]()
    hosts = net.router.members
    hosts.subscribe(lambda: names.extend(host.name for host in hosts.members if host.member_id == 4))
    for node, name in ((2, ""), (3, "new")):
        net.nodes[node].applied = 9
        net.nodes[node].say_state()
        table = Table([*(Peer(m, f"h{m}", "127.0.0.1", m) for m in (1, 2, 3)), Peer(4, name, "127.0.0.1", 4)])
        net.nodes[node].answer(0, Status.MEMBERS, table.encode_all())
        net.run()
    net.pass_time(2.0)
    assert names == ["", "new"]
    tells(net, 2, 1, 2, 3, 5, applied=10)
    net.pass_time(0.2)
    assert known(net) == [1, 2, 3, 5]
