"""Long transactions are checked in steps: others' requests go on between them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.faults import faults
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.http.http2 import encode_block
from proxy.http.http2 import frames as f
from proxy.http.http2.connection import TURN_WORK
from proxy.services import kv
from tests.tries import best_of_three
from tests.unit.many_ops import very_many
from tests.unit.proxy.cost import Fronted
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import Served
from tests.unit.turns import short_turns


def begun(served: Served, request: pb.TxnRequest) -> FakeCall:
    """A transaction that has come, and nothing more."""
    call = FakeCall()
    served.methods.handlers["Txn"](call, request.SerializeToString())
    return call


@best_of_three
def test_a_transaction_of_very_many_operations_holds_nobodys_puts_up() -> None:
    """18,432 took 60 ms of the front's loop, and then as much of its leader's."""
    served = Served()
    loop: Any = served.net.loop
    request = very_many()
    with short_turns(0.01) as turns:
        with turns.turn():
            begun(served, request)
        turns_taken = 0
        while served.net.context.stepped:
            with turns.turn():
                loop.turn()
            if not turns_taken % 50:
                put = pb.PutRequest(key=b"k", value=b"v").SerializeToString()
                served.methods.handlers["Put"](FakeCall(), put)
            turns_taken += 1
    served.net.run()
    methods = [request.method for request in served.node.take()]
    assert turns_taken > 100
    assert methods.count(Method.TXN) == 1
    assert methods[:2] == [Method.PUT] * 2, "they leave meanwhile"


def test_it_is_refused_as_if_it_had_been_checked_at_once() -> None:
    served = Served()
    request = very_many(1024)
    request.success.append(request.success[0])
    call = begun(served, request)
    served.net.run()
    refusal = EtcdError(errors.DUPLICATE_KEY)
    assert call.status == (refusal.code, refusal.text)
    assert not served.node.take()


def test_one_that_its_client_has_given_up_goes_no_further() -> None:
    served = Served()
    call = begun(served, very_many(1024))
    call.closed = True
    served.net.run()
    assert not served.node.take()
    assert not served.net.context.stepped


def test_a_mistake_in_the_checks_ends_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    call, other = begun(served, very_many(1024)), begun(served, very_many(2048))
    real = validate.check_put
    mistakes = [1]

    def mistaken(request: Any) -> None:
        if mistakes:
            mistakes.clear()
            raise KeyError("a mistake")
        real(request)

    monkeypatch.setattr(validate, "check_put", mistaken)
    served.net.run()
    refusal = EtcdError(errors.INTERNAL_FAULT)
    assert call.status == (refusal.code, refusal.text)
    assert other.status is None
    assert [request.method for request in served.node.take()] == [Method.TXN]
    assert faults.take()


def nested(depth: int) -> pb.TxnRequest:
    op = (pb.RequestOp(request_txn=nested(depth - 1)) if depth else
          pb.RequestOp(request_put=pb.PutRequest(key=b"a")))
    return pb.TxnRequest(success=[op])


def wide_deletes() -> pb.TxnRequest:
    ops = [pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"%03d" % i, range_end=b"%03da" % i))
           for i in range(128)]
    return pb.TxnRequest(success=ops, failure=ops)


def plain_puts() -> pb.TxnRequest:
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"%03d" % i)) for i in range(128)]
    return pb.TxnRequest(success=ops, failure=ops)


SMALL = {
    "nested": pb.TxnRequest(success=[pb.RequestOp(request_txn=nested(40))] * 10),  # 1,920 bytes, 6 ms
    "deletes": wide_deletes(),
    "plain": plain_puts(),
}


@best_of_three
@pytest.mark.parametrize("kind", SMALL)
def test_very_many_small_transactions_that_are_dear_to_check_are_not_checked_in_one_turn(kind: str) -> None:
    """100 on each of four connections, read in one turn of the loop."""
    front = Fronted(4, "/etcdserverpb.Lease/LeaseKeepAlive")
    kv.register(front.registry, front.net.context)
    loop: Any = front.net.loop
    body = SMALL[kind].SerializeToString()
    assert len(body) < 4096
    block = encode_block([(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/etcdserverpb.KV/Txn"),
                          (b":authority", b"a"), (b"content-type", b"application/grpc")])
    message = b"\0" + len(body).to_bytes(4, "big") + body
    read = b"".join(f.header_frames(number, block, False) + f.frame(f.DATA, f.END_STREAM, number, message)
                    for number in range(3, 203, 2))
    with short_turns() as turns:
        with turns.turn():
            for connection in front.connections:
                connection.receive(read, 0.0)
        while any(connection.more for connection in front.connections) or front.net.context.stepped:
            for connection in front.connections:
                if connection.more:
                    with turns.turn():
                        connection.receive(b"", 0.0)
            with turns.turn():
                loop.turn()
    front.net.run()
    counted = front.net.context.method("unary", kv.SERVICE, "Txn")
    assert counted.started == 400
    assert sum(counted.codes.values()) == (400 if kind == "nested" else 0), "a key that is put twice"


def test_a_usual_transaction_is_checked_as_it_comes_and_counts_as_one_message() -> None:
    served = Served()
    request = pb.TxnRequest(
        compare=[pb.Compare(key=b"k")],
        success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"b", range_end=b"c")),
                 pb.RequestOp(request_txn=nested(0))])
    call = begun(served, request)
    assert not served.net.context.stepped
    served.net.run()
    assert [one.method for one in served.node.take()] == [Method.TXN]
    assert call.work < TURN_WORK >> 2
