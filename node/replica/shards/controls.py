"""Control records (compactions) at the sequencer: acknowledged once every shard's leader has applied them
(H11, I20)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.order.sequencing.coordinator import MAX_WAITING
from cluster.order.sequencing.reports import Controls
from cluster.raft import Role
from cluster.wire.messages import ANSWER, Status
from node.any_node import AnyNode
from node.links.fronts import FrontLink, Tell


class ControlsNode(AnyNode, Protocol):
    applied_index: int


class ControlWaits:
    """The fronts of one node 0 that wait for the acknowledgement of a control record."""

    def __init__(self, node: ControlsNode, applied_by_all: Callable[[], int]) -> None:
        """``applied_by_all()``: the order record that every shard's leader has applied."""
        self._node = node
        self._applied_by_all = applied_by_all
        # the front, its answer record, and what gets both
        self._waits: Controls[tuple[FrontLink, bytes, Tell]] = Controls()

    def __len__(self) -> int:
        return len(self._waits)

    @property
    def full(self) -> bool:
        return len(self._waits) >= MAX_WAITING

    def acknowledge(self, link: FrontLink, record: bytes, tell: Tell) -> None:
        """A control record is applied here: ``tell`` gets ``record``, which answers it, once every shard's
        leader has applied it (I20); at once if it is refused."""
        if ANSWER.unpack_from(record)[1] != Status.OK:
            tell(link, record)
        elif not self.full:
            self._waits.add(self._node.applied_index, (link, record, tell))
            self.release()
            self.settle()
        else:  # it was logged before so many waited
            self._tell_unknown(link, record)
        assert len(self._waits) <= MAX_WAITING, "I23: what waits is bounded"

    def release(self) -> None:
        if len(self._waits):
            for link, record, tell in self._waits.done(self._applied_by_all()):
                tell(link, record)

    def settle(self) -> None:
        """A node that does not lead hears no reports, so it answers "unknown". The record is not lost, for it
        is applied here: its client must not ask for it again (I23)."""
        if self._node.raft.role is not Role.LEADER:
            for link, record, _ in self._waits.all():
                self._tell_unknown(link, record)

    def _tell_unknown(self, link: FrontLink, record: bytes) -> None:
        unknown = EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode()
        link.answer(ANSWER.unpack_from(record)[0], Status.UNKNOWN, unknown)
        self._node.mark_dirty(link)

    def forget(self) -> None:
        """Drop waits that their fronts have given up: a shard without a leader ends no wait (I23)."""
        self._waits.keep(lambda waits: waits[0].awaits(ANSWER.unpack_from(waits[1])[0]))
