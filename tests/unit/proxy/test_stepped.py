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
from tests.tries import best_of_three
from tests.unit.many_ops import very_many
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.test_services import Served
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
