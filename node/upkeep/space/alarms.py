"""Alarms: which ones are raised here, and how a host has its own raised.

The leader of shard 0 logs an alarm. A host asks it, again and again until the alarm is applied there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from cluster.evaluate.validate import parse
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from node.storage import StateStore

log = structlog.get_logger("upkeep")


class Alarms:
    def __init__(self, store: StateStore, member_id: int, *, ask: Callable[[bytes], None],
                 leader: Callable[[], Leader | None]) -> None:
        """``ask``: has an alarm of this host logged, wherever the leader is."""
        self._store = store
        self._member_id = member_id
        self._ask = ask
        self._leader = leader
        self._read()

    def _read(self) -> None:
        self._raised = self._store.alarms()
        self.no_space = any(kind == rpc_pb2.NOSPACE for _, kind in self._raised)
        self.corrupt = any(kind == rpc_pb2.CORRUPT for _, kind in self._raised)

    def changed(self) -> None:
        self._read()
        log.warning(
            "alarms",
            raised=[f"{rpc_pb2.AlarmType.Name(kind)} {member_id:x}" for member_id, kind in self._raised])

    def want(self, kind: rpc_pb2.AlarmType) -> None:
        """Ask for an alarm of this host, unless it is applied here."""
        if (self._member_id, kind) not in self._raised:
            self._ask(_raising(self._member_id, kind))

    def raise_for(self, member_id: int, kind: rpc_pb2.AlarmType) -> None:
        """This node's leader raises a host's alarm."""
        self.asked(_raising(member_id, kind))

    def asked(self, body: bytes) -> None:
        request = parse(rpc_pb2.AlarmRequest.FromString, body)
        if (request.memberID, request.alarm) not in self._raised and (leader := self._leader()) is not None:
            leader.execute(Method.SET_ALARM, body)


def _raising(member_id: int, kind: rpc_pb2.AlarmType) -> bytes:
    raised = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member_id, alarm=kind)
    return raised.SerializeToString()
