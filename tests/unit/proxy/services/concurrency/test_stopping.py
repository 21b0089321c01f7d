"""What a host's orderly stop makes of locks and elections that are under way: over fake nodes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import STOPPED, TIMEOUT_DUE_TO_LEADER_FAIL
from cluster.pb import election_pb2, lock_pb2, rpc_pb2
from cluster.wire.messages import Method
from tests.unit.proxy.services.concurrency.test_concurrency import (
    CAMPAIGN,
    FIRST,
    LOCK,
    Queue,
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
def test_at_a_stop_who_waits_for_others_gives_up_its_key(path: str) -> None:
    """It was put, and nobody knows yet whether it goes."""
    queue = Queue()
    call = queue.stand(path, wanted(path, 7))
    queue.world.net.context.stop()
    assert call.status == (UNKNOWN.code, UNKNOWN.text)
    ((method, body),) = sent(queue)
    assert method == (Method.DELETE_RANGE if path == LOCK else Method.TXN)
    assert b"n/7" in body


@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_what_is_given_up_at_a_stop_is_sent_though_the_links_end_in_that_turn(path: str) -> None:
    """A client of HTTP/1 has its answer at once, so no call is open."""
    queue = Queue()
    queue.stand(path, wanted(path, 7))
    queue.world.net.context.stop()
    queue.world.net.context.router.close()
    ((_, body),) = sent(queue)
    assert b"n/7" in body


@pytest.mark.parametrize("lease", [0, 7])
@pytest.mark.parametrize("path", [LOCK, CAMPAIGN])
def test_who_comes_to_wait_while_the_host_stops_gives_up_its_key(path: str, lease: int) -> None:
    queue = Queue()
    net = queue.world.net
    if lease:
        call = queue.begin(path, wanted(path, lease))
        (txn,) = net.nodes[2].take(Method.TXN)
    else:
        call, txn = granted(queue, path)
    net.context.stop()
    net.nodes[2].ok(txn, 5, told(path, True, FIRST))
    queue.read(FIRST)
    assert call.status == (UNKNOWN.code, UNKNOWN.text)
    if lease:
        ((method, body),) = sent(queue)
        assert method == (Method.DELETE_RANGE if path == LOCK else Method.TXN)
        assert b"n/7" in body
    else:
        assert sent(queue) == [(Method.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=7).SerializeToString())]


def test_at_a_stop_an_observer_is_told_that_the_host_stops() -> None:
    queue = Queue()
    call = queue.begin("/v3electionpb.Election/Observe", NAMED)
    queue.world.net.context.stop()
    assert call.status == (STOPPED.code, STOPPED.text)
