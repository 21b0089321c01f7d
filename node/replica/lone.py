"""The role of a store's only shard: its log is the order, and nobody else waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cluster.effects import records
from cluster.raft import EntryKind, Raft
from node.links.fronts import FrontLink
from node.replica.applying import is_full, one_run
from node.replica.role import Body, Kinds, Owed

if TYPE_CHECKING:
    import asyncio

    from node.replica.applying import Applies
    from node.replica.pauses import GatheringTimer
    from node.replica.writes import Writes
    from node.serving.confirm import Confirmations
    from node.serving.looking import Looking
    from node.serving.watches import WatchSource
    from node.storage import Applied, StateStore
    from node.upkeep.upkeep import Upkeep

_APPLY_ENTRIES = 256


class LoneNode(Protocol):
    """What the role of an only shard needs of its node."""

    raft: Raft
    store: StateStore
    writes: Writes
    confirmations: Confirmations
    looking: Looking
    watches: WatchSource
    upkeep: Upkeep
    gathering: GatheringTimer
    applies: Applies
    applied_index: int
    fatal: asyncio.Future[str]

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: Applied) -> None:
        """A run of this shard's own log is applied."""


class LoneRole:
    """See the module and ``node.replica.role``."""

    links = None
    gathers = True
    awaited = False

    def __init__(self, node: LoneNode, kinds: Kinds) -> None:
        self._node = node
        self._writes = node.writes

    def submit(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        """A write of a front."""
        self._writes.submit(link, rid, method, body)

    @property
    def alone(self) -> bool:
        """Whether at most one write is on its way here, and none waits."""
        return self._writes.alone

    @property
    def queued(self) -> int:
        """Writes that wait to be evaluated, or are looked at before."""
        return self._writes.queued + self._writes.aside

    @property
    def has_room(self) -> bool:
        """Whether a tick would evaluate writes that are queued."""
        return not self._writes.uncommitted or self._writes.due

    @property
    def settled(self) -> bool:
        """Whether :meth:`evaluate` would do nothing now, for certain."""
        return not (self._writes.ready or self._node.confirmations.asked)

    @property
    def owed(self) -> Owed:
        """What keeps this node from ending."""
        return owed_of_writes(self._writes, self._node.looking)

    def evaluate(self) -> None:
        """The first part of a tick."""
        node = self._node
        node.writes.run()
        node.confirmations.run(node.writes.leader is not None)

    def finish(self) -> None:
        """Nothing is left to do."""

    def apply(self, last: int) -> None:
        """Every entry is in order as it stands."""
        node = self._node
        raft, store = node.raft, node.store
        # until the layout is known one by one: what comes after another layout than ours cannot be read here
        most = _APPLY_ENTRIES if store.bootstrap() is not None else 1
        while node.applied_index < last and not node.fatal.done() and not node.applies.busy:
            run = one_run(raft.log_entries(node.applied_index + 1, min(last, node.applied_index + most)))
            if most == 1 and (agreed := records.bootstrap_in(run[0][2])) is not None:
                node.upkeep.agreed.check_bootstrap(agreed)
                if node.fatal.done():
                    return
            if node.applied_index + len(run) < last and is_full(run, most):
                node.gathering.later()  # far behind, as after a restart: the loop is served between two runs
                last = node.applied_index + len(run)
            index, term, _ = run[0]
            if len(run) == 1 and (rows := node.writes.prepared(index, term)) is not None and most > 1:
                node.applied_run(run, node.applies.at_once(
                    partial(store.apply_own, rows, index, term, want_events=node.watches.active)))
                continue
            node.applies.run(
                store.apply_slices(run, want_events=node.watches.active, evaluated=node.writes.prepared),
                partial(node.applied_run, run))

    def catch_up(self) -> None:
        """Have all applied that is known to be committed."""
        gathering = self._node.gathering
        if gathering.waits:
            gathering.catch_up()

    def replaced(self) -> None:
        """Nothing here hangs on the state."""

    def leader_changed(self) -> None:
        """The node's own writes are all there is."""

    def ask_leader(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """There is no other shard."""

    def unapplied(self) -> Iterable[bytes]:
        """Records of the order that are here and not applied yet."""
        return unapplied_records(self._node.raft, self._node.applied_index)

    def facts(self) -> dict[str, Any]:
        """Nothing besides."""
        return {}

    def close(self) -> None:
        """Nothing was opened."""


def owed_of_writes(writes: Writes, looking: Looking) -> Owed:
    """What fronts wait for of the writes that this node's leader evaluated."""
    return Owed.FATE if writes.uncommitted > 0 or len(looking) > 0 else Owed.NOTHING


def unapplied_records(raft: Raft, applied_index: int) -> Iterable[bytes]:
    """Those in the tail of the own log, where that is the order."""
    for entry in raft.log_entries(applied_index + 1, raft.last_index):
        if entry.kind == EntryKind.RECORD:
            yield entry.data
