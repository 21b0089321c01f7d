"""A host lists members once it stands among them, or has waited for that once."""

from __future__ import annotations

from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method, Status
from proxy.routing.reads import listing
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Served

KNOWN = pb.MemberListResponse(
    members=[
        pb.Member(ID=1, name="h1", clientURLs=["http://a"], peerURLs=["http://b"]),
        pb.Member(ID=2, name="h2", clientURLs=["http://c"], peerURLs=["http://d"]),
    ]
)
UNKNOWN = pb.MemberListResponse(members=[pb.Member(ID=1), KNOWN.members[1]])


def joined() -> Served:
    served = Served(leader=2)
    served.net.context.listing.stands = False
    return served


def questions(net: Net) -> list[int]:
    return [r.method for r in net.nodes[1].requests]


def answer(net: Net, listed: pb.MemberListResponse) -> None:
    for request in net.nodes[1].take(Method.MEMBER_LIST):
        net.nodes[1].ok(request, 5, listed.SerializeToString())
    net.run()


def shown(call: FakeCall) -> pb.MemberListResponse:
    (reply,) = call.replies
    return pb.MemberListResponse.FromString(reply)


def test_a_list_waits_until_this_host_stands_in_it() -> None:
    served = joined()
    net = served.net
    call = served.call("MemberList", pb.MemberListRequest())
    for _ in range(3):
        assert questions(net) == [Method.MEMBER_LIST]
        answer(net, UNKNOWN)
        assert call.status is None
        net.pass_time(0.1)
    answer(net, KNOWN)  # the question of the wait itself
    answer(net, KNOWN)  # the client's
    assert call.status == (0, "")
    assert list(shown(call).members) == list(KNOWN.members)
    served.call("MemberList", pb.MemberListRequest())
    assert questions(net) == [Method.MEMBER_LIST]  # at once from then on


def test_a_host_that_is_not_listed_in_time_answers_all_the_same_and_waits_no_more() -> None:
    served = joined()
    net = served.net
    linearizable = served.call("MemberList", pb.MemberListRequest(linearizable=True))
    answer(net, UNKNOWN)
    net.pass_time(listing.LIMIT_S + 0.2)
    (index,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(index, 3)
    net.run()
    answer(net, UNKNOWN)
    assert linearizable.status == (0, "")
    call = served.call("MemberList", pb.MemberListRequest())
    answer(net, UNKNOWN)
    assert call.status == (0, "")


def test_a_node_that_cannot_say_is_asked_again() -> None:
    served = joined()
    net = served.net
    call = served.call("MemberList", pb.MemberListRequest())
    (request,) = net.nodes[1].take(Method.MEMBER_LIST)
    net.nodes[1].answer(request.rid, Status.ERROR, b"")
    net.pass_time(0.1)
    answer(net, KNOWN)
    answer(net, KNOWN)
    assert call.status == (0, "")


def test_a_client_that_leaves_meanwhile_is_asked_for_by_nobody() -> None:
    served = joined()
    net = served.net
    call = served.call("MemberList", pb.MemberListRequest())
    call.closed = True
    answer(net, KNOWN)
    assert questions(net) == []
    assert served.count("etcdserverpb.Cluster", "MemberList", 1) == 1
