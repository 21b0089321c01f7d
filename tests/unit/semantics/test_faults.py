"""A mistake in this program ends the request that met it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.overlay import NotYet
from cluster.evaluate.txns import transactions as txn_eval
from cluster.faults import Faults, faults
from cluster.pb import rpc_pb2 as pb
from tests.unit.semantics.memory import MemoryShard


def alarm(**fields: Any) -> bytes:
    return pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, **fields).SerializeToString()


@pytest.mark.parametrize("number", [3, 7, 255, 300, 2**31 - 1, -1])
def test_an_alarm_without_a_name_is_refused_before_it_is_logged(number: int) -> None:
    """Numbers above 255 overflowed a byte of the log, the others ended every replica that applied them."""
    with pytest.raises(EtcdError) as refused:
        evaluate.set_alarm(MemoryShard(), alarm(alarm=number), frozenset())
    assert refused.value.kind is errors.UNKNOWN_ALARM


def test_an_action_without_a_name_is_refused() -> None:
    with pytest.raises(EtcdError) as refused:
        evaluate.set_alarm(MemoryShard(), pb.AlarmRequest(action=9, alarm=1).SerializeToString(), frozenset())
    assert refused.value.kind is errors.UNKNOWN_ALARM


def test_attributes_of_a_host_that_nobody_can_read_are_not_logged() -> None:
    with pytest.raises(EtcdError) as refused:
        evaluate.publish(MemoryShard(), b"\xff\xff\xff")
    assert refused.value.kind is errors.MALFORMED_REQUEST


def test_a_mistake_in_evaluating_is_counted_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*args: Any) -> Any:
        raise KeyError("a mistake")

    monkeypatch.setattr(txn_eval, "find_deleted", mistaken)
    before = faults.count
    for _ in range(3):
        with pytest.raises(EtcdError) as refused:
            evaluate.delete_range(MemoryShard(), pb.DeleteRangeRequest(key=b"k").SerializeToString())
        assert refused.value.kind is errors.INTERNAL_FAULT
    assert faults.count == before + 3
    assert [where for where, _ in faults.take()] == ["evaluating: delete_range"]


@pytest.mark.parametrize("signal", [NotYet(5), AssertionError("I7"), OSError("a disk")])
def test_what_is_no_mistake_of_evaluating_passes(signal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*args: Any) -> Any:
        raise signal

    monkeypatch.setattr(txn_eval, "find_deleted", raising)
    with pytest.raises(type(signal)):
        evaluate.delete_range(MemoryShard(), pb.DeleteRangeRequest(key=b"k").SerializeToString())


def test_a_place_is_kept_once_and_what_waits_to_be_logged_is_bounded() -> None:
    found = Faults()
    for number in range(1000):
        found.met(f"place {number % 50}", ValueError())
    assert found.count == 1000
    first = found.take()
    assert [where for where, _ in first] == [f"place {number}" for number in range(16)]
    assert found.take() == []
    found.met("place 0", ValueError())
    assert found.take() == []


def test_one_fault_is_one_place_by_whatever_path_a_client_meets_it() -> None:
    """256 paths filled all places: no later fault of that process had its stack in the log."""
    found = Faults()
    for number in range(1000):
        try:
            int("x")
        except ValueError as error:
            found.met(f"serving /v2/keys/{number}", error)
        found.take()
    try:
        [][0]
    except IndexError as error:
        found.met("serving /v2/keys/a", error)
    assert len(found.take()) == 1
