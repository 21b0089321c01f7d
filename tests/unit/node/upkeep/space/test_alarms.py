"""CORRUPT: what is refused while it is raised, and when a host asks for it."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.effects import records
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from tests.unit.node.upkeep.replicas import Make


def test_while_a_member_is_corrupt_nothing_is_written_and_the_alarm_can_be_disarmed(replica: Make) -> None:
    node = replica()
    writes = (Method.PUT, Method.DELETE_RANGE, Method.TXN, Method.COMPACT, Method.LEASE_GRANT,
              Method.LEASE_REVOKE)
    node.store.apply([(node.log.last_index() + 1, 1, records.alarm(True, pb.CORRUPT, 2))])
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {None}, "not known yet"
    node.upkeep.alarms_changed()
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {errors.CORRUPT}
    assert node.upkeep.quota.refusal(Method.SET_ALARM, b"") is None
    node.store.apply([(node.log.last_index() + 2, 1, records.alarm(False, pb.CORRUPT, 2))])
    node.upkeep.alarms_changed()
    assert {node.upkeep.quota.refusal(method, b"") for method in writes} == {None}


@pytest.mark.parametrize("checks", [False, True])
def test_keys_and_leases_that_do_not_agree_raise_corrupt_if_asked_for(replica: Make, checks: bool) -> None:
    node = replica(corrupt_check=checks)
    for _ in range(2):
        node.upkeep.lease_checks._corrupt()
    found = [(alarm.action, alarm.memberID, alarm.alarm) for alarm in node.raised]
    assert found == ([(pb.AlarmRequest.ACTIVATE, 1, pb.CORRUPT)] * 2 if checks else [])
