"""A host shows what it has acknowledged, as an etcd member has applied it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import READ, Method
from proxy.http.requests import HttpRequest
from proxy.v2.members import Members
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.test_services import Served

INDEX = 7
ADDED = pb.MemberAddResponse(member=pb.Member(ID=9), members=[pb.Member(ID=9)])
CHANGES = {
    "MemberAdd": (pb.MemberAddRequest(peerURLs=["http://a:1"]), ADDED),
    "MemberRemove": (pb.MemberRemoveRequest(ID=3), pb.MemberRemoveResponse(members=ADDED.members)),
    "MemberUpdate": (pb.MemberUpdateRequest(ID=3), pb.MemberUpdateResponse(members=ADDED.members)),
    "MemberPromote": (pb.MemberPromoteRequest(ID=9), pb.MemberPromoteResponse(members=ADDED.members)),
}


class Web(HttpRequest):
    """Keeps the status of its answer."""

    said = 0

    def respond(self, status: int, body: bytes, *_: Any, **__: Any) -> None:
        self.start(status)

    def start(self, status: int, *_: Any) -> None:
        assert not self.said, "answered twice"
        self.said = status

    def end(self, *_: Any) -> None: ...


class Behind:
    """Host 1's front; host 2 leads, and has applied what host 1's nodes have not."""

    def __init__(self) -> None:
        self.served = Served(leader=2)
        self.net: Net = self.served.net
        self.own, self.leader = self.net.nodes[1], self.net.nodes[2]

    def change(self, method: str) -> FakeCall:
        """A change of members, which the leader has acknowledged."""
        wish, answer = CHANGES[method]
        call = self.served.call(method, wish)
        self.acknowledge(Method.MEMBERS, answer.SerializeToString())
        return call

    def acknowledge(self, method: Method, tail: bytes = b"") -> None:
        (asked,) = self.leader.take(method)
        self.leader.ok(asked, tail=tail)
        self.net.run()

    def index(self) -> None:
        (asked,) = self.leader.take(Method.READ_INDEX)
        self.leader.index(asked, INDEX)
        self.net.run()

    def applies(self, node: FakeNode) -> None:
        """A node has applied what was asked for."""
        (asked,) = node.take()
        assert READ.unpack_from(asked.body) == (INDEX, 0)
        node.ok(asked)
        self.net.run()


@pytest.mark.parametrize("method", CHANGES)
def test_a_change_of_members_is_answered_once_this_host_lists_it(method: str) -> None:
    """etcdctl 3.4 asks the same host for the list, and makes the new host's settings of it."""
    behind = Behind()
    call = behind.change(method)
    behind.index()
    assert call.status is None
    behind.applies(behind.own)
    assert call.status == (0, "")
    answer = type(CHANGES[method][1]).FromString(call.replies[0])
    assert [member.ID for member in answer.members] == [9]
    assert behind.served.count("etcdserverpb.Cluster", method, 0) == 1


def test_a_host_that_stays_behind_answers_all_the_same() -> None:
    for indexed in (False, True):
        behind = Behind()
        call = behind.change("MemberAdd")
        if indexed:
            behind.index()
        behind.net.pass_time(0.4)
        assert call.status is None
        behind.net.pass_time(0.3)
        assert call.status == (0, "")
        behind.net.pass_time(10)
        assert len(call.replies) == 1


def test_a_host_without_its_node_answers_at_once() -> None:
    """A removed one's ends."""
    behind = Behind()
    call = behind.change("MemberRemove")
    behind.net.cut(1)
    behind.index()
    assert call.status == (0, "")


@pytest.mark.parametrize(
    ("verb", "path", "method", "status"),
    [
        ("POST", "/v2/members", "MemberAdd", 201),
        ("PUT", "/v2/members/3", "MemberUpdate", 204),
        ("DELETE", "/v2/members/3", "MemberRemove", 204),
    ],
)
def test_so_is_one_by_version_2(verb: str, path: str, method: str, status: int) -> None:
    behind = Behind()
    root: Any = type("Root", (), {"if_root": staticmethod(lambda request, then: then())})
    body = b'{"peerURLs":["http://a:1"]}'
    request = Web(verb, path, "", {"content-type": "application/json"}, body, "")
    Members(behind.net.context, root).serve(request)
    behind.net.run()
    behind.acknowledge(Method.MEMBERS, CHANGES[method][1].SerializeToString())
    behind.index()
    assert not request.said
    behind.applies(behind.own)
    assert request.said == status
