"""Alarms and downgrades are judged by what is logged: what is applied may be behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.features import downgrade
from cluster.features.lessor import Lessor
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from node.storage import StateStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(tmp_path / "state")
    yield store
    store.close()


def leading(store: StateStore) -> Leader:
    return Leader(store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7)


def downgraded(leader: Leader, action: int, version: str = "") -> bytes:
    request = pb.DowngradeRequest(action=action, version=version)  # type: ignore[arg-type]
    return leader.execute(Method.SET_DOWNGRADE, request.SerializeToString()).items


def disarmed(leader: Leader) -> bytes:
    request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=7, alarm=pb.NOSPACE)
    return leader.execute(Method.SET_ALARM, request.SerializeToString()).tail


def test_of_two_downgrades_at_once_one_is_refused(store: StateStore) -> None:
    """Both were told that they had enabled it, and a cancel between them that there was none."""
    leader = leading(store)
    assert downgraded(leader, downgrade.ENABLE, "3.4")
    with pytest.raises(EtcdError) as refused:
        downgraded(leader, downgrade.ENABLE, "3.4")
    assert refused.value.kind is errors.DOWNGRADE_IN_PROCESS
    assert downgraded(leader, downgrade.CANCEL)
    with pytest.raises(EtcdError) as refused:
        downgraded(leader, downgrade.CANCEL)
    assert refused.value.kind is errors.NO_INFLIGHT_DOWNGRADE
    assert downgraded(leader, downgrade.ENABLE, "3.4")


def test_a_leader_goes_on_from_the_downgrade_that_another_has_logged(store: StateStore) -> None:
    store.apply([(1, 1, records.downgrade("3.4.0"))])
    with pytest.raises(EtcdError) as refused:
        downgraded(leading(store), downgrade.ENABLE, "3.4")
    assert refused.value.kind is errors.DOWNGRADE_IN_PROCESS
    assert downgraded(leading(store), downgrade.CANCEL)


def test_of_two_that_disarm_an_alarm_at_once_one_is_told_that_it_did(store: StateStore) -> None:
    store.apply([(1, 1, records.alarm(True, pb.NOSPACE, 7))])
    leader = leading(store)
    assert disarmed(leader)
    assert not disarmed(leader)


def test_an_alarm_that_is_logged_and_not_applied_is_disarmed(store: StateStore) -> None:
    """It stayed, and who disarmed it was told nothing."""
    leader = leading(store)
    raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE)
    leader.execute(Method.SET_ALARM, raised.SerializeToString())
    assert disarmed(leader)
    item, _ = leader.seal()
    store.apply([(1, 1, item)])
    assert not store.alarms()
