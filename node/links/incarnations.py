"""Which data directory a member has: so an emptied host is known to be another one (H10, I2).

Two memories, and a member must match both.

*Heard*: this replica's own, of each peer that said hello, synced before the first message of that peer is
taken.

*Agreed*: what the leader of shard 0 had heard, logged right after the first entry of its term, before any
write that it evaluates. Every replica of every shard applies it, and it travels with snapshots: so replicas
that never heard a peer know it, and an emptied host learns from the log itself that it is not what it was.
The first record of a member counts for ever. What is agreed of a member that was never heard is remembered as
heard: a shard's node that is killed forgets what it has applied until the feed has brought it again.

What stays open: a host whose first acknowledgement and whose loss both come before that record is applied,
towards peers that have not heard it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.storage import RaftLog

REFUSED = (
    # etcd's words, then why
    "member {:x} has already been bootstrapped: it came back without the data that it had. Its old votes and "
    "acknowledged writes are lost, so it may not take part under its old identity. Remove the member and add "
    "it again as a new one, with an empty data directory"
)


class Incarnations:
    """Both memories of one replica. Incarnation 0 means none: it is neither logged nor compared."""

    def __init__(
        self, member_id: int, incarnation: int, members: Iterable[int], memory: RaftLog,
        agreed: Mapping[int, int], logged: Callable[[], Iterable[tuple[int, int]]] = tuple,
    ) -> None:
        """``logged``: the records in the log's tail, which is not applied yet; read at a first contact
        only."""
        self.agreed = dict(agreed)
        self._memory = memory
        self._in_log = logged
        self._own = member_id
        self._heard: dict[int, int] = {member_id: incarnation}
        for member in members:
            if member != member_id and (seen := memory.meta(_name(member))) is not None:
                self._heard[member] = int.from_bytes(seen, "big")
        # a term, and the members that were logged in it
        self._logged: tuple[int, set[int]] = (0, set())

    def accept(self, member_id: int, incarnation: int) -> bool:
        """Whether a hello is of the replica that is known here. The first one is remembered; blocks for a
        sync."""
        if not self._is_agreed(member_id, incarnation):
            return False
        seen = self.heard(member_id)
        if seen is None:
            # the tail may not be committed, but what it reports of the past is true
            if any(m == member_id and i != incarnation for m, i in self._in_log()):
                return False
            # H10: remembered on disk before the first message of that replica is taken
            self._remember(member_id, incarnation)
            self._memory.sync()
            return True
        return seen == incarnation

    def _remember(self, member_id: int, incarnation: int) -> None:
        self._heard[member_id] = incarnation
        self._memory.set_meta(_name(member_id), incarnation.to_bytes(8, "big"))

    def heard(self, member_id: int) -> int | None:
        """The incarnation that this replica has heard of a member; None: none."""
        if member_id not in self._heard and (seen := self._memory.meta(_name(member_id))) is not None:
            self._heard[member_id] = int.from_bytes(seen, "big")
        return self._heard.get(member_id)

    def to_log(self, term: int) -> list[tuple[int, int]]:
        """``(member, incarnation)`` of all that were heard and are not agreed, once a term: for the leader
        of shard 0."""
        if self._logged[0] != term:
            self._logged = (term, set())
        logged = self._logged[1]
        new = [(member, incarnation) for member, incarnation in self._heard.items()
               if incarnation and member not in self.agreed and member not in logged]
        logged.update([member for member, _ in new])
        return new

    def agree(self, records: Iterable[tuple[int, int]]) -> list[int]:
        """Records were applied, or came with a snapshot. Returns the members, this one included, that do
        not match."""
        self.agreed.update(records)
        unheard = [(member, agreed) for member, agreed in self.agreed.items() if self.heard(member) is None]
        for member, agreed in unheard:  # H10: a crash takes what was applied, and not this
            self._remember(member, agreed)
        if unheard:
            self._memory.sync()
        return [member for member, heard in self._heard.items() if not self._is_agreed(member, heard)]

    def _is_agreed(self, member_id: int, incarnation: int) -> bool:
        return not incarnation or self.agreed.get(member_id, incarnation) == incarnation


def _name(member_id: int) -> str:
    return f"incarnation/{member_id:x}"
