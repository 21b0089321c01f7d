"""A host shows what it has acknowledged, as an etcd member has applied it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import errors
from cluster.errors import Code, EtcdError
from cluster.faults import faults
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import READ, Method, Status
from proxy.http.requests import HttpRequest
from proxy.v2.members import Members
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.served import Served

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

    def __init__(self, shards: int = 1) -> None:
        self.served = Served(leader=2, shards=shards)
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

    def put(self) -> None:
        """A client is told of revision 100."""
        put = self.served.call("Put", pb.PutRequest(key=b"k", value=b"v"))
        (asked,) = self.leader.take(Method.PUT)
        self.leader.ok(asked, revision=100)
        self.net.run()
        assert pb.PutResponse.FromString(put.replies[0]).header.revision == 100
        self.own.take()

    def asked(self) -> list[int]:
        """What the own node has been asked since."""
        return [request.method for request in self.own.take()]

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


def test_a_host_without_its_node_waits_for_the_one_that_it_reads_from() -> None:
    """Which stays the same after another host's election."""
    behind = Behind()
    net = behind.net
    net.cut(1)
    net.lead(3, 2)
    behind.leader = net.nodes[3]
    call = behind.change("MemberRemove")
    behind.index()
    assert call.status is None
    behind.applies(net.nodes[2])
    assert call.status == (0, "")


def test_a_node_that_knows_no_leader_is_waited_for() -> None:
    """It lists the members, and reads go to it again in a moment."""
    behind = Behind()
    behind.own.leader = 0
    behind.own.say_state()
    behind.net.run()
    call = behind.change("MemberRemove")
    behind.index()
    behind.applies(behind.own)
    assert call.status == (0, "")


ENDED = {
    "MemberUpdate": ("etcdserverpb.Cluster", Method.MEMBERS, pb.MemberUpdateRequest(ID=3)),
    "UserDelete": ("etcdserverpb.Auth", Method.AUTH_CHANGE, pb.AuthUserDeleteRequest(name="u")),
}


@pytest.mark.parametrize("code", [Code.CANCELED, Code.DEADLINE_EXCEEDED])
@pytest.mark.parametrize("method", ENDED)
def test_a_call_that_ends_meanwhile_counts_as_ended(method: str, code: Code) -> None:
    service, asks, wish = ENDED[method]
    behind = Behind()
    call = behind.served.call(method, wish)
    behind.acknowledge(asks)
    behind.index()
    call.closed = True
    call.deadline = behind.net.loop.now if code == Code.DEADLINE_EXCEEDED else None
    behind.applies(behind.own)
    behind.net.pass_time(1)
    counted = [behind.served.count(service, method, int(one)) for one in (Code.OK, code)]
    assert (counted, call.replies) == ([0, 1], [])


def test_a_fault_of_the_program_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> bytes:
        raise KeyError("for a test")

    behind = Behind()
    call = behind.served.call("UserDelete", pb.AuthUserDeleteRequest(name="u"))
    behind.acknowledge(Method.AUTH_CHANGE)
    behind.index()
    monkeypatch.setattr(behind.net.router, "header", wrong)
    behind.applies(behind.own)
    assert call.status == (int(Code.INTERNAL), errors.INTERNAL_FAULT.text)
    assert [where for where, _ in faults.take()] == ["answering AUTH_CHANGE"]


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


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="r", key=b"k")),
        ("UserDelete", pb.AuthUserDeleteRequest(name="u")),
        ("AuthEnable", pb.AuthEnableRequest()),
        ("UserChangePassword", pb.AuthUserChangePasswordRequest(name="u")),
    ],
)
def test_a_change_of_users_is_answered_once_this_hosts_replicas_judge_by_it(method: str, change: Any) -> None:
    """A serializable read goes by the users that its replica has applied."""
    behind = Behind(shards=2)
    call = behind.served.call(method, change)
    behind.acknowledge(Method.AUTH_CHANGE)
    behind.index()
    behind.applies(behind.own)
    assert call.status is None
    behind.applies(behind.net.every[1, 1])
    assert call.status == (0, "")
    assert behind.served.count("etcdserverpb.Auth", method, 0) == 1


def test_a_change_of_users_waits_for_a_shard_that_came_meanwhile() -> None:
    behind = Behind()
    net = behind.net
    call = behind.served.call("UserDelete", pb.AuthUserDeleteRequest(name="u"))
    net.every |= {(1, member): FakeNode(member, 1) for member in net.nodes}
    net.router.follow_shards([0, 1], {0, 1})
    net.pass_time(0.1)  # it is linked to
    behind.acknowledge(Method.AUTH_CHANGE)
    behind.index()
    behind.applies(behind.own)
    assert call.status is None
    behind.applies(net.every[1, 1])
    assert call.status == (0, "")


@pytest.mark.parametrize(("method", "asks", "change"), [
    ("Alarm", Method.SET_ALARM, pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE)),
    ("Downgrade", Method.SET_DOWNGRADE, pb.DowngradeRequest(action=pb.DowngradeRequest.CANCEL)),
])  # fmt: skip
def test_what_a_status_shows_is_changed_once_this_host_shows_it(
    method: str, asks: Method, change: Any
) -> None:
    """An operator who disarms an alarm looks at the same host for what is left of it."""
    behind = Behind()
    call = behind.served.call(method, change)
    behind.acknowledge(asks)
    behind.index()
    assert call.status is None
    behind.applies(behind.own)
    assert call.status == (0, "")
    assert behind.served.count("etcdserverpb.Maintenance", method, 0) == 1


def test_a_refused_change_of_users_is_answered_at_once() -> None:
    behind = Behind()
    call = behind.served.call("UserDelete", pb.AuthUserDeleteRequest(name="u"))
    (asked,) = behind.leader.take(Method.AUTH_CHANGE)
    behind.leader.answer(asked.rid, Status.ERROR, EtcdError(errors.PERMISSION_DENIED).encode())
    behind.net.run()
    assert call.status == (7, "etcdserver: permission denied")
    assert not behind.leader.take()


@pytest.mark.parametrize(
    ("method", "request_", "asks"),
    [("Status", pb.StatusRequest(), Method.STATUS), ("Hash", pb.HashRequest(), Method.HASH)],
)
def test_how_a_host_is_is_shown_at_once(method: str, request_: Any, asks: Method) -> None:
    """Operators look at hosts that are behind, and programs often at all of them."""
    behind = Behind()
    behind.put()
    behind.served.call(method, request_)
    assert behind.asked() == [asks]


@pytest.mark.parametrize("leads", [2, 0])
def test_a_backup_has_what_was_acknowledged_here(leads: int) -> None:
    """The marker that was written before it, and a lease, which takes no revision. Also while its node knows
    no leader, as just after its start."""
    behind = Behind()
    behind.own.leader = leads
    behind.own.say_state()
    behind.put()
    behind.served.call("Snapshot", pb.SnapshotRequest())
    behind.index()
    assert Method.SNAPSHOT not in [request.method for request in behind.own.requests]
    behind.applies(behind.own)
    assert behind.asked() == [Method.SNAPSHOT]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_node_that_stays_behind_makes_it_half_a_second_later(indexed: bool) -> None:
    behind = Behind()
    behind.put()
    behind.served.call("Snapshot", pb.SnapshotRequest())
    if indexed:
        behind.index()
    behind.net.pass_time(0.4)
    assert Method.SNAPSHOT not in behind.asked()
    behind.net.pass_time(0.3)
    assert Method.SNAPSHOT in behind.asked()


def test_a_backup_that_no_node_can_make_is_refused_after_the_usual_time() -> None:
    behind = Behind()
    for member in behind.net.nodes:
        behind.net.cut(member)
    call = behind.served.call("Snapshot", pb.SnapshotRequest())
    behind.net.pass_time(behind.net.router.limit_s + 1)
    assert call.status is not None


def test_a_backup_whose_client_has_gone_is_not_begun_late() -> None:
    behind = Behind()
    call = behind.served.call("Snapshot", pb.SnapshotRequest())
    behind.index()
    call.closed = True
    behind.served.methods.handlers["Snapshot"].cancelled(call)
    behind.applies(behind.own)
    assert behind.asked() == []
    assert behind.served.count("etcdserverpb.Maintenance", "Snapshot", int(Code.CANCELED)) == 1


def test_a_proxy_sends_the_wish_to_move_leadership_to_the_leader() -> None:
    """It has no node that could lead, so who leads is asked, as for any other request."""
    served = Served(leader=2, own=0)
    net, leader = served.net, served.node
    call = served.call("MoveLeader", pb.MoveLeaderRequest(targetID=3))
    (asked,) = leader.take(Method.TRANSFER_LEADER)
    assert int.from_bytes(asked.body, "little") == 3
    leader.ok(asked)
    net.pass_time(0.2)
    assert call.status is None
    net.lead(3, 2)
    net.pass_time(0.2)
    assert call.status == (0, "")


def test_leadership_has_moved_once_this_hosts_node_knows() -> None:
    """A status right after it names the new leader."""
    served = Served()
    net, own, other = served.net, served.net.nodes[1], served.net.nodes[2]
    call = served.call("MoveLeader", pb.MoveLeaderRequest(targetID=2))
    (asked,) = own.take(Method.TRANSFER_LEADER)
    own.ok(asked)
    other.leader, other.term = 2, 2
    net.pass_time(0.2)
    assert net.router.routes[0].leader == 2
    assert call.status is None
    own.leader, own.term = 2, 2
    net.pass_time(0.2)
    assert call.status == (0, "")
