"""Answers in pieces come as far as their clients have room for them."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method, Status
from proxy.routing.pieces import CREDIT_BYTES
from tests.unit.proxy.fakes import FakeCall, Request
from tests.unit.proxy.served import Served

PIECE = rpc_pb2.RangeResponse(kvs=[{"key": b"a1", "value": b"v" * CREDIT_BYTES}]).SerializeToString()
RANGE = rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True).SerializeToString()


class Asked(Served):
    """Ranges of one shard, and their pieces."""

    def ask(self, connection: object = None) -> tuple[FakeCall, int]:
        """A range of a client; the call, and the request's number at the node."""
        call = FakeCall()
        call.connection = connection or call
        self.methods.handlers["Range"](call, RANGE)
        self.net.run()
        (request,) = self.node.take()
        assert request.method == Method.RANGE
        return call, request.rid

    def piece(self, rid: int) -> list[Request]:
        """One comes; what the node is told of answers then."""
        self.node.answer(rid, Status.PARTIAL, HEAD.pack(9, 1) + PIECE)
        return self.told()

    def told(self) -> list[Request]:
        self.net.run()
        return [request for request in self.node.take() if request.rid]


def test_credit_is_given_as_pieces_come_while_there_is_room() -> None:
    asked = Asked()
    call, rid = asked.ask()
    for number in range(1, 6):
        (credit,) = asked.piece(rid)
        assert (credit.method, credit.rid) == (Method.CREDIT, rid)
        assert int.from_bytes(credit.body, "little") == call.gathered == number * (HEAD.size + len(PIECE))
    asked.node.answer(rid, Status.OK, b"")
    assert asked.told() == []
    assert call.status == (0, "")


def test_signs_that_a_node_goes_on_are_empty_pieces() -> None:
    """Nodes count for long what an answer does not show. Fronts of older versions take this as this one."""
    asked = Asked()
    call, rid = asked.ask()
    for piece in (HEAD.pack(9, 1), b"", b""):
        asked.net.pass_time(5)
        asked.node.answer(rid, Status.PARTIAL, piece)
        asked.net.run()
    assert call.status is None
    asked.node.answer(rid, Status.OK, rpc_pb2.RangeResponse(count=7).SerializeToString())
    asked.net.run()
    assert call.status == (0, "")
    (reply,) = call.replies
    found = rpc_pb2.RangeResponse.FromString(reply)
    assert (found.header.revision, found.count) == (9, 7)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(("method", "writes"), [
    (Method.READ_TXN, False), (Method.TXN, True), (Method.DELETE_RANGE, True)])
def test_signs_come_of_transactions_and_deletes_too(method: Method, writes: bool, refused: bool) -> None:
    """Fronts of older versions take this as this one."""
    asked, call = Asked(), FakeCall()
    rows = rpc_pb2.RangeRequest(key=b"a", range_end=b"b", serializable=True)
    compare = rpc_pb2.Compare(key=b"a", range_end=b"b")
    txn = rpc_pb2.TxnRequest(compare=[compare], success=[rpc_pb2.RequestOp(request_range=rows)])
    if writes:
        txn.success.add().request_put.key = b"a"
    delete = rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)
    if method == Method.DELETE_RANGE:
        asked.methods.handlers["DeleteRange"](call, delete.SerializeToString())
    else:
        asked.methods.handlers["Txn"](call, txn.SerializeToString())
    asked.net.run()
    (request,) = asked.node.take()
    assert request.method == method
    for piece in (HEAD.pack(9, 1), b"", b""):
        asked.net.pass_time(5)
        asked.node.answer(request.rid, Status.PARTIAL, piece)
        asked.net.run()
    assert call.status is None
    if refused:
        asked.node.answer(request.rid, Status.ERROR, EtcdError(errors.COMPACTED).encode())
    else:
        asked.node.answer(request.rid, Status.OK, b"\x10\x01")
    asked.net.run()
    if refused:
        assert call.status == (errors.COMPACTED.code, errors.COMPACTED.text)
        return
    assert call.status == (0, "")
    (reply,) = call.replies
    found = rpc_pb2.TxnResponse.FromString(reply)
    assert (found.header.revision, found.succeeded) == (9, True)


def test_a_read_that_only_counts_so_far_takes_no_turn_of_its_connection() -> None:
    """Nothing is held of it. A later answer of its client had to wait for its end, and was refused."""
    asked = Asked()
    counts, counting = asked.ask()
    asked.node.answer(counting, Status.PARTIAL, HEAD.pack(9, 1))
    asked.net.run()
    later, rid = asked.ask(counts.connection)
    later.room_to_gather = False
    (credit,) = asked.piece(rid)
    assert (credit.method, credit.rid) == (Method.CREDIT, rid)
    assert counts.gathered == 0


def test_what_was_read_from_the_link_is_told_whoever_it_is_for() -> None:
    asked = Asked()
    call, rid = asked.ask()
    call.room_to_gather = call.takes = False
    told = []
    for _ in range(9):
        asked.node.answer(rid, Status.PARTIAL, PIECE)
        asked.net.run()
        told += [int.from_bytes(request.body, "little") for request in asked.node.take() if not request.rid]
    assert told == [4 * len(PIECE), 8 * len(PIECE)]
    call.closed = True
    for _ in range(4):
        asked.node.answer(rid + 1, Status.PARTIAL, PIECE)  # nobody waits for it
    asked.net.run()
    assert int.from_bytes(asked.node.take()[-1].body, "little") >= 12 * len(PIECE)


def test_without_room_a_connection_gets_its_answers_one_after_the_other() -> None:
    asked = Asked()
    first, first_rid = asked.ask()
    second, second_rid = asked.ask(first.connection)
    _, other_rid = asked.ask()
    first.room_to_gather = second.room_to_gather = False
    assert [credit.rid for credit in asked.piece(first_rid)] == [first_rid]
    assert asked.piece(second_rid) == []
    assert [credit.rid for credit in asked.piece(other_rid)] == [other_rid], (
        "another connection waits for neither"
    )
    asked.node.answer(first_rid, Status.OK, b"")
    asked.net.pass_time(0.1)
    assert first.status == (0, "")
    assert [credit.rid for credit in asked.told()] == [second_rid]


def test_a_client_that_takes_nothing_is_waited_for_and_then_told() -> None:
    asked = Asked()
    call, rid = asked.ask()
    call.room_to_gather = call.takes = False
    assert asked.piece(rid) == []
    limit_s = asked.net.context.common.limit_s
    stall_s = asked.net.context.common.client_stall_timeout_ms / 1000
    asked.net.pass_time(limit_s + 1)
    assert call.status is None, "it is no node that is slow"
    call.takes = True
    asked.net.pass_time(0.1)
    assert [credit.rid for credit in asked.told()] == [rid]
    call.takes = False
    assert asked.piece(rid) == []
    asked.net.pass_time(stall_s + 1)
    assert call.status == (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")
    assert [request.method for request in asked.told()] == [Method.CANCEL]
    assert len(asked.net.context.router.pieces) == 0


def test_an_answer_for_which_there_is_no_room_at_all_is_refused_and_not_read_on() -> None:
    asked = Asked()
    call, rid = asked.ask()
    asked.piece(rid)
    call.beyond_all_room = True
    (cancel,) = asked.piece(rid)
    assert (cancel.method, cancel.rid) == (Method.CANCEL, rid)
    assert call.status == (errors.TOO_MANY_REQUESTS.code, "etcdserver: too many requests")


def test_an_answer_whose_client_takes_others_first_is_waited_for_and_its_node_is_told() -> None:
    asked = Asked()
    call, rid = asked.ask()
    call.room_to_gather = call.takes = False
    assert asked.piece(rid) == []
    asked.net.pass_time(4)
    for at in range(1, 31):
        call.progress = at
        asked.net.pass_time(4)
        assert {(told.method, told.rid, bytes(told.body)) for told in asked.told()} == {
            (Method.CREDIT, rid, bytes(8))
        }
    assert call.status is None


def test_a_write_whose_answer_is_given_up_is_not_told_that_it_was_not_done() -> None:
    asked = Asked()
    call = FakeCall()
    delete = rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"b", prev_kv=True)
    asked.methods.handlers["DeleteRange"](call, delete.SerializeToString())
    asked.net.run()
    (request,) = asked.node.take(Method.DELETE_RANGE)
    call.beyond_all_room = True
    asked.piece(request.rid)
    assert call.status == (errors.TIMEOUT.code, "etcdserver: request timed out")
