"""Three real nodes, without fronts: writes, reads, watches, leases, restarts, snapshots."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, LEADER, READ, READ_INDEX_ANSWER, SUBSCRIBE_HEAD, Method, Status
from tests import events
from tests.cluster.local_cluster import until
from tests.cluster.nodes import Front, Nodes
from tools.muster.machine.process.crash import FATAL_EXIT


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path) as nodes:
        yield nodes


def put(front: Front, key: bytes, value: bytes, **fields: int) -> int:
    """Put through a leader's link; the revision."""
    status, body = front.call(Method.PUT, pb.PutRequest(key=key, value=value, **fields).SerializeToString())
    assert status == Status.OK, (status, body)
    return int(HEAD.unpack_from(body)[0])


def leader_front(nodes: Nodes) -> Front:
    """A link to a leader that serves."""
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        front = nodes.front(nodes.wait_leader())
        try:
            status, _ = front.call(Method.READ_INDEX, b"", 1.0)
            if status == Status.OK:
                return front
        except TimeoutError:
            pass
        front.close()
    raise TimeoutError("no serving leader")


def get(front: Front, key: bytes, range_end: bytes = b"", index: int = 0) -> pb.RangeResponse:
    body = READ.pack(index, 0) + pb.RangeRequest(key=key, range_end=range_end).SerializeToString()
    rid = front.request(Method.RANGE, body)
    tail = b""
    first = True
    while True:
        status, body = front.wait(rid)
        assert status in (Status.OK, Status.PARTIAL), (status, body)
        tail += body[HEAD.size :] if first else body
        first = False
        if status == Status.OK:
            return pb.RangeResponse.FromString(tail)


def test_a_put_at_the_leader_is_read_at_every_replica(nodes: Nodes) -> None:
    front = leader_front(nodes)
    assert [put(front, b"a", b"1"), put(front, b"a", b"2"), put(front, b"b", b"3")] == [2, 3, 4]
    status, body = front.call(Method.READ_INDEX, b"")
    index, revision, _ = READ_INDEX_ANSWER.unpack(body)
    assert (status, revision) == (Status.OK, 4)
    for member_id in nodes.settings:
        kvs = get(nodes.front(member_id), b"a", b"\0", index).kvs
        assert [(kv.key, kv.value, kv.version, kv.create_revision, kv.mod_revision) for kv in kvs] == [
            (b"a", b"2", 2, 2, 3), (b"b", b"3", 1, 4, 4)]


def test_a_follower_says_that_nothing_was_logged(nodes: Nodes) -> None:
    leader = nodes.wait_leader()
    follower = next(m for m in nodes.settings if m != leader)
    front = nodes.front(follower)

    def led_by() -> int:
        status, body = front.call(Method.PUT, pb.PutRequest(key=b"a").SerializeToString())
        assert status == Status.NOT_LEADER
        return int(LEADER.unpack(body)[0])

    until(lambda: led_by() == leader)  # it may not have heard of the leader yet


def test_a_subscription_gets_every_event_once_and_in_order(nodes: Nodes) -> None:
    front = leader_front(nodes)
    follower = next(m for m in nodes.settings if m != nodes.wait_leader())
    watcher = nodes.front(follower)
    rid = watcher.request(Method.SUBSCRIBE, SUBSCRIBE_HEAD.pack(2, 1, 2) + b"w/" + b"w0")
    assert watcher.wait(rid)[0] == Status.SUBSCRIBED
    for i in range(50):
        put(front, b"w/%d" % (i % 5), b"%d" % i)
        put(front, b"x", b"other")
    seen: list[tuple[int, bytes, bytes]] = []
    while len(seen) < 50:
        status, body = watcher.wait(rid)
        assert status == Status.EVENTS
        seen += [(revision, event.kv.key, event.prev_kv.value) for revision, event in events.read(body)]
    assert [s[0] for s in seen] == [2 + 2 * i for i in range(50)]
    assert [bool(s[2]) for s in seen] == [False] * 5 + [True] * 45


def test_a_lease_takes_its_keys_with_it(nodes: Nodes) -> None:
    front = leader_front(nodes)
    status, body = front.call(Method.LEASE_GRANT, pb.LeaseGrantRequest(TTL=1, ID=5).SerializeToString())
    assert status == Status.OK
    put(front, b"leased", b"v", lease=5)
    until = time.monotonic() + 60
    while get(front, b"leased").count and time.monotonic() < until:
        front.receive(0.05)
    assert get(front, b"leased").count == 0
    status, body = front.call(Method.PUT, pb.PutRequest(key=b"x", lease=5).SerializeToString())
    assert status == Status.ERROR
    assert EtcdError.decode(body).kind is errors.LEASE_NOT_FOUND


def test_nothing_acknowledged_is_lost_when_all_are_killed_at_once(nodes: Nodes) -> None:
    front = leader_front(nodes)
    for i in range(200):
        put(front, b"k%03d" % i, b"v%d" % i)
    for member_id in nodes.settings:
        nodes.kill(member_id)
    nodes.start_all()
    front = leader_front(nodes)
    answer = get(front, b"k", b"l")
    assert [kv.value for kv in answer.kvs] == [b"v%d" % i for i in range(200)]
    assert put(front, b"k000", b"again") == 202


def test_writes_go_on_without_the_killed_leader(nodes: Nodes) -> None:
    front = leader_front(nodes)
    put(front, b"a", b"1")
    nodes.kill(nodes.wait_leader())
    front = leader_front(nodes)
    assert put(front, b"a", b"2") == 3


def test_a_member_emptied_before_a_peer_ever_heard_it_is_refused_by_that_peer(tmp_path: Path) -> None:
    """H10: 1 and 2 commit, 3 comes when 2 has gone, 2 is emptied and comes back when 1 has gone."""
    nodes = Nodes(tmp_path)
    try:
        nodes.start(1)
        nodes.start(2)
        put(leader_front(nodes), b"a", b"1")
        nodes.kill(2)
        nodes.start(3)
        put(leader_front(nodes), b"b", b"2")  # by 1 and 3
        nodes.kill(1)
        shutil.rmtree(nodes.settings[2].data_dir)
        nodes.settings[2] = replace(nodes.settings[2], incarnation=99)
        nodes.start(2)
        assert nodes.processes.pop(2).wait(30) == FATAL_EXIT
        assert "has already been bootstrapped: it came back without the data that it had" in nodes.logs(2)
        assert nodes.processes[3].poll() is None
        nodes.start(1)
        assert get(leader_front(nodes), b"a", b"\0").count == 2
    finally:
        nodes.__exit__(None, None, None)
