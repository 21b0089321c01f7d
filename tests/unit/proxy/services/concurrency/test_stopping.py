"""What a host's orderly stop makes of locks and elections that are under way: over fake nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import STOPPED, TIMEOUT_DUE_TO_LEADER_FAIL
from cluster.pb import election_pb2, lock_pb2, rpc_pb2
from cluster.wire.messages import Method
from tests.unit.proxy.fakes import FakeCall, Request
from tests.unit.proxy.services.concurrency.test_concurrency import (
    CAMPAIGN,
    FIRST,
    LOCK,
    Queue,
    asked_before,
    granted,
    sent,
    told,
    wanted,
)

UNLOCK, PROCLAIM = "/v3lockpb.Lock/Unlock", "/v3electionpb.Election/Proclaim"
RESIGN, LEADER = "/v3electionpb.Election/Resign", "/v3electionpb.Election/Leader"
KEY = election_pb2.LeaderKey(name=b"n", key=b"n/7", rev=5, lease=7)
NAMED = election_pb2.LeaderRequest(name=b"n")
WRITES = [
    (UNLOCK, lock_pb2.UnlockRequest(key=b"n/7"), b""),
    (PROCLAIM, election_pb2.ProclaimRequest(leader=KEY, value=b"v"), b"\x10\x01"),
    (RESIGN, election_pb2.ResignRequest(leader=KEY), b"\x10\x01"),
    (LOCK, wanted(LOCK, 7), told(LOCK, True)),
    (CAMPAIGN, wanted(CAMPAIGN, 7), told(CAMPAIGN, True)),
]
UNKNOWN = TIMEOUT_DUE_TO_LEADER_FAIL


def putting(queue: Queue, path: str, lease: int) -> tuple[FakeCall, Request]:
    """A call whose key is being put, and the request for that. ``lease``: 0 is one of its own."""
    if not lease:
        return granted(queue, path)
    call = queue.begin(path, wanted(path, lease))
    (txn,) = queue.world.net.nodes[2].take(Method.TXN)
    return call, txn


def gives_up(queue: Queue, call: FakeCall, method: Method) -> Request:
    """The one request by which the call tidies up; its client is answered behind that."""
    net = queue.world.net
    net.run()
    (request,) = net.nodes[2].take(method)
    assert b"n/7" in request.body or method == Method.LEASE_REVOKE
    assert call.status is None
    net.nodes[2].ok(request, 6)
    net.run()
    assert call.status == (UNKNOWN.code, UNKNOWN.text)  # the key was put, and is gone
    assert sent(queue) == []
    return request


@pytest.mark.parametrize(("path", "request_", "answer"), WRITES)
def test_what_is_under_way_is_answered_while_the_host_stops(path: str, request_: Any, answer: bytes) -> None:
    queue = Queue()
    net = queue.world.net
    call = queue.begin(path, request_)
    (asked,) = net.nodes[2].take(Method.TXN) + net.nodes[2].take(Method.DELETE_RANGE)
    net.context.stop()
    assert call.status is None
    net.nodes[2].ok(asked, 5, answer)
    queue.read()  # nobody stands before the candidate
    assert call.status == (0, "")
    assert sent(queue) == []
    assert queue.begin(path, request_).status == (STOPPED.code, STOPPED.text)


def test_a_question_under_way_is_answered_while_the_host_stops() -> None:
    queue = Queue()
    call = queue.begin(LEADER, NAMED)
    queue.world.net.context.stop()
    queue.read(FIRST)
    assert call.status == (0, "")


@pytest.mark.parametrize(("path", "request_", "answer"), WRITES)
def test_a_write_without_an_answer_when_the_host_has_stopped_is_of_unknown_outcome(
    path: str, request_: Any, answer: bytes
) -> None:
    queue = Queue()
    net = queue.world.net
    call = queue.begin(path, request_)
    net.context.stop()
    net.context.router.close()
    assert call.status is not None
    assert call.status[1] == UNKNOWN.text


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_at_a_stop_who_waits_for_others_is_answered_once_its_key_is_gone(path: str) -> None:
    """A client that tries again elsewhere under its lease would take over the key, and lose it."""
    queue = Queue()
    call = queue.stand(path, wanted(path, 7))
    queue.world.net.context.stop()
    gives_up(queue, call, Method.DELETE_RANGE if path == LOCK else Method.TXN)


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_a_key_that_waits_for_a_leader_as_the_host_stops_is_given_up_before_the_answer(path: str) -> None:
    queue = Queue()
    net = queue.world.net
    call = queue.stand(path, wanted(path, 7))
    for node in net.nodes.values():
        node.leader = 0
    net.pass_time(0.5)
    net.context.stop()
    net.pass_time(2.0)
    assert (call.status, sent(queue)) == (None, [])
    for node in net.nodes.values():
        node.leader, node.term = 2, 2
    net.pass_time(0.5)
    gives_up(queue, call, Method.DELETE_RANGE if path == LOCK else Method.TXN)


@pytest.mark.parametrize("lease", [0, 7])
@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_who_gives_up_without_a_leader_is_answered_at_the_end_of_the_grace(path: str, lease: int) -> None:
    queue = Queue()
    net = queue.world.net
    if lease:
        call = queue.stand(path, wanted(path, lease))
    else:
        call, txn = granted(queue, path)
        found = rpc_pb2.RangeResponse(kvs=[FIRST], count=1)
        net.nodes[1].ok(asked_before(queue, txn, path), 0, found.SerializeToString())
        queue.world.settle()
    for node in net.nodes.values():
        node.leader = 0
    net.pass_time(0.5)
    net.context.stop()
    net.pass_time(5.0)
    assert call.status is None
    net.context.router.close()
    assert call.status == (UNKNOWN.code, UNKNOWN.text)
    assert net.context.hub.statistics()["watches"] == 0


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_a_client_that_goes_as_its_key_is_given_up_leaves_none(path: str) -> None:
    queue = Queue()
    call = queue.stand(path, wanted(path, 7))
    queue.world.net.context.stop()
    queue.leave(call)
    assert call.on_cancel is None
    assert sent(queue) == []


@pytest.mark.parametrize("lease", [0, 7])
@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_who_comes_to_wait_while_the_host_stops_gives_up_its_key(path: str, lease: int) -> None:
    queue = Queue()
    net = queue.world.net
    call, txn = putting(queue, path, lease)
    net.context.stop()
    net.nodes[2].ok(txn, 5, told(path, True, FIRST))
    queue.read(FIRST)
    if lease:
        gives_up(queue, call, Method.DELETE_RANGE if path == LOCK else Method.TXN)
    else:
        revoke = gives_up(queue, call, Method.LEASE_REVOKE)
        assert revoke.body == rpc_pb2.LeaseRevokeRequest(ID=7).SerializeToString()


@pytest.mark.parametrize("lease", [0, 7])
@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_who_looks_who_stands_before_it_is_answered_at_the_end_of_the_grace(path: str, lease: int) -> None:
    """Its read fails with the links. What tidies up behind that finds none, and fails as well."""
    queue = Queue()
    net = queue.world.net
    call, txn = putting(queue, path, lease)
    asked_before(queue, txn, path)
    net.context.stop()
    net.context.router.close()
    assert call.status == (2, UNKNOWN.text)
    assert net.context.router.statistics()["queued"] == 0


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_whose_key_was_put_without_a_leader_since_has_an_unknown_outcome(path: str) -> None:
    """The question who stands before it was never sent; its key was."""
    queue = Queue()
    net = queue.world.net
    call = queue.begin(path, wanted(path, 7))
    (txn,) = net.nodes[2].take(Method.TXN)
    for node in net.nodes.values():
        node.leader = 0
        node.say_state()
    net.nodes[2].ok(txn, 5, told(path, True, FIRST))
    net.pass_time(0.3)
    net.context.stop()
    net.pass_time(1.0)
    assert call.status is None
    net.context.router.close()
    assert call.status == (2, UNKNOWN.text)


def test_at_a_stop_an_observer_is_told_that_the_host_stops() -> None:
    queue = Queue()
    call = queue.begin("/v3electionpb.Election/Observe", NAMED)
    queue.world.net.context.stop()
    assert call.status == (STOPPED.code, STOPPED.text)
