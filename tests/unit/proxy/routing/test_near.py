"""Reads of one key from a node in the same process keep every rule that frames keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster import errors
from cluster.faults import faults
from cluster.wire.messages import HEAD, READ, Method, Status
from cluster.wire.protobuf import header_prefix, response_header
from proxy.routing.router import MethodStats
from tests.unit.proxy.fakes import FakeCall, Net


@dataclass
class NearNode:
    revision: int = 1
    order_index: int = 1
    guarded: bool = False
    generation: int = 0
    asked: list[bytes] = field(default_factory=list)
    bad: bytes = b""  # a key whose reading fails

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        if key == self.bad:
            raise ValueError("a fault of this program")
        self.asked.append(key)
        return self.revision, 1, b"kv of " + key

    def v2_file(self, path: bytes, after: int, now_ns: int) -> None:
        raise AssertionError("no request of version 2 is made here")


def joined(leader: int) -> tuple[Net, NearNode]:
    net = Net().started(leader=leader)
    near = NearNode()
    link = net.nodes[1].link
    assert link is not None
    link.near = near
    return net, near


def get(net: Net, serializable: bool, stats: MethodStats | None = None) -> FakeCall:
    call = FakeCall()
    net.router.get(call, b"\x0a\x01k", b"k", serializable, 0, stats or MethodStats())
    return call


def answer(revision: int) -> bytes:
    return response_header(header_prefix(7, 1), revision, 1) + b"kv of k"


def test_a_serializable_read_is_answered_in_the_call() -> None:
    net, near = joined(leader=2)
    stats = MethodStats()
    near.revision = 5
    call = get(net, True, stats)
    assert call.replies == [answer(5)]
    assert (stats.ok, net.router.highest) == (1, 5)
    net.run()
    assert net.nodes[1].take() == net.nodes[2].take() == []


def test_a_serializable_read_waits_for_what_this_front_has_shown() -> None:
    net, near = joined(leader=2)
    net.router.highest = 9
    near.revision = 8
    call = get(net, True)
    net.run()
    assert (call.closed, near.asked) == (False, [])
    net.nodes[1].watermark(9)
    net.run()
    (request,) = net.nodes[1].take(Method.RANGE)  # the long way, in order with what it waited for
    assert not call.closed
    near.revision = 9
    assert get(net, True).replies == [answer(9)]
    net.nodes[1].ok(request, 9, b"x")
    net.run()
    assert call.closed


def test_h2_a_linearizable_read_is_answered_only_after_a_question_asked_after_it_came() -> None:
    for leader in (1, 2):
        net, near = joined(leader)
        first = get(net, False)
        net.run()
        assert (first.closed, near.asked) == (False, [])
        (question,) = net.nodes[leader].take(Method.READ_INDEX)
        late = get(net, False)  # while the question is under way
        net.nodes[leader].index(question, 1)
        net.run()
        assert first.replies == [answer(1)]
        assert not late.closed
        (question,) = net.nodes[leader].take(Method.READ_INDEX)
        net.nodes[leader].index(question, 1)
        net.run()
        assert late.replies == [answer(1)]
        assert net.nodes[1].take(Method.RANGE) == []


def test_a_fault_in_a_near_read_ends_no_others_of_its_batch() -> None:
    net, near = joined(leader=2)
    calls = [FakeCall() for _ in range(3)]
    for call, key in zip(calls, (b"k", b"bad", b"k"), strict=True):
        net.router.get(call, b"\x0a\x01k", key, False, 0, MethodStats())
    near.bad = b"bad"
    net.run()
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 1)
    net.run()
    assert [call.replies for call in calls] == [[answer(1)], [], [answer(1)]]
    assert calls[1].status == (errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text)
    assert [where for where, _ in faults.take()] == ["sending a read"]


def test_a_near_node_that_has_not_applied_the_index_is_asked_to_wait_for_it() -> None:
    net, near = joined(leader=2)
    near.order_index = 6
    call = get(net, False)
    net.run()
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 7)
    net.run()
    assert (call.closed, near.asked) == (False, [])
    (request,) = net.nodes[1].take(Method.RANGE)
    assert request.body == READ.pack(7, 0) + b"\x0a\x01k"


def test_reads_of_one_question_look_at_the_near_node_once_and_before_it_may_apply_more() -> None:
    class Looked(NearNode):
        looks = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "order_index":
                Looked.looks += 1
            return super().__getattribute__(name)

    net, _ = joined(leader=2)
    link = net.nodes[1].link
    assert link is not None
    near = link.near = Looked()
    calls = [get(net, False) for _ in range(3)]
    net.router.index(lambda waiting, status, body: setattr(near, "guarded", True))
    calls.append(get(net, False))  # answered before the index is told
    net.run()
    Looked.looks = 0
    (question,) = net.nodes[2].take(Method.READ_INDEX)
    net.nodes[2].index(question, 1)
    net.run()
    assert [call.replies for call in calls] == [[answer(1)]] * 4
    assert (Looked.looks, near.guarded) == (1, True)


def test_an_own_node_that_is_cut_off_from_a_leader_which_can_be_reached_is_not_read_near() -> None:
    net, near = joined(leader=2)
    net.nodes[1].leader = 0
    net.pass_time(0.3)
    call = get(net, True)
    net.run()
    assert (call.closed, near.asked) == (False, [])
    assert len(net.nodes[2].take(Method.RANGE)) == 1


def test_a_lost_link_to_the_near_node_ends_reading_near() -> None:
    net, near = joined(leader=2)
    net.cut(1)
    call = get(net, True)
    net.run()
    assert (call.closed, near.asked) == (False, [])


def test_a_large_answer_in_pieces_is_the_one_that_comes_in_frames() -> None:
    net, _ = joined(leader=2)
    net.router.highest = 3
    link = net.nodes[1].link
    assert link is not None
    whole, stats = FakeCall(), MethodStats()
    joined_parts: list[tuple[int, bytes]] = []
    net.nodes[1].watermark(3)
    net.run()
    net.router.read(whole, Method.RANGE, b"whole", 0, True, stats)
    net.router.read(None, Method.RANGE, b"parts", 0, True, stats,
                    lambda waiting, status, body: joined_parts.append((status, body)))
    net.run()
    requests = {request.body[READ.size :]: request.rid for request in net.nodes[1].take(Method.RANGE)}
    for rid in requests.values():
        link.pieces(rid, Status.PARTIAL, [HEAD.pack(5, 1), b"a" * 10])
        link.pieces(rid, Status.PARTIAL, [b"b", b"c"])
        assert rid in link.pending
        link.pieces(rid, Status.OK, [b"d"])
        assert rid not in link.pending
        link.pieces(rid, Status.OK, [b"too late"])  # nobody waits for it any more
    assert whole.replies == [response_header(header_prefix(7, 1), 5, 1) + b"a" * 10 + b"bcd"]
    assert joined_parts == [
        (Status.PARTIAL, HEAD.pack(5, 1) + b"a" * 10), (Status.PARTIAL, b"bc"), (Status.OK, b"d")]
    assert (stats.ok, net.router.highest) == (1, 5)
