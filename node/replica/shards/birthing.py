"""Births and retirements at a node 0: the sequencer's steps, and what follows the table on each host.

Node 0 says to the supervisor which born shards the table has. It gives each a genesis first
(``node.storage.genesis``), unless something of the shard is in order already: then that node begins empty and
follows, or a peer sends it a state. It says that a shard is dropped once the drop is on its own disk: after a
crash it would come back from before, and the shard's node would begin anew. All is said again at each start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster.features.births import next_id, next_slot
from cluster.order.log import Fold
from cluster.order.sequencing.reports import Reports
from cluster.placement import Placement, Table
from cluster.placement.births import Births
from cluster.placement.table import State
from cluster.repeats import Repeats
from cluster.settings import genesis_file
from node.any_node import AnyNode
from node.links.siblings import NodeLinks
from node.machine import NodeMachine
from node.replica.moving.disks import Disks
from node.storage import Position
from node.storage.keys import FOLD_ROW

if TYPE_CHECKING:
    from cluster.order.sequencing.sequencer import Sequencer
    from node.replica.applying import Applies
    from node.replica.shards.feed import Feeds
    from node.replica.writes import Writes
    from node.upkeep.upkeep import Upkeep

log = structlog.get_logger("sequencer")


class BornNode(AnyNode, Protocol):
    machine: NodeMachine
    upkeep: Upkeep


class Born:
    """Of node 0."""

    def __init__(self, node: BornNode) -> None:
        self._node = node
        self._table: Table | None = None
        self._making: set[int] = set()
        self._made: set[int] = set()  # shards whose nodes have what they begin with
        self._dropped_by: dict[int, int] = {}  # dropped shards, and an order record that has it applied
        self._gone: set[int] = set()  # dropped shards of which the host may remove all
        self._thread = node.machine.thread("genesis")
        self._repeats = Repeats()
        self._closed = False
        node.upkeep.on_flushed = self._flushed

    def look(self, table: Table, fold: Fold) -> None:
        """The table that is applied here, and the fold there. Also each second."""
        base = table.base.shards
        news, self._table = table is not self._table, table
        wanted = [s for s, known in table.shards.items() if s >= base and known.state != State.DROPPED]
        self._made.intersection_update(wanted)
        for shard in sorted(wanted):
            if shard in self._made or shard in self._making:
                continue
            if fold.cut(shard).index or self._node.machine.has_begun(self._folder(shard)):
                self._made.add(shard)
                news = True
            else:
                self._begin(shard, fold)
        if self._look_at_drops(table) or news:
            self._say(table)

    def _look_at_drops(self, table: Table) -> bool:
        """Whether more drops are on disk now."""
        store, before = self._node.store, len(self._gone)
        for shard, known in table.shards.items():
            if known.state == State.DROPPED:
                self._dropped_by.setdefault(shard, store.position.order_index)
        # H10: a node that began anew would vote without the votes, and the entries, that went with its files
        on_disk = store.durable_position.order_index
        self._gone.update(shard for shard, index in self._dropped_by.items() if index <= on_disk)
        if len(self._gone) < len(self._dropped_by):
            self._node.upkeep.flushes.owe()
        return len(self._gone) > before

    def _flushed(self) -> None:
        if self._table is not None and self._look_at_drops(self._table):
            self._say(self._table)

    def _folder(self, shard: int) -> Path:
        return Path(self._node.settings.data_dir).parent / f"shard-{shard}"

    def _begin(self, shard: int, fold: Fold) -> None:
        node = self._node
        position = node.store.position
        # G12: exactly here nothing of the shard is in order
        begins = Position(position.order_index, 0, 0, position.revision, position.compact_revision)
        self._making.add(shard)
        write = node.machine.genesis(
            node.store, Path(genesis_file(node.settings.data_dir, shard)), begins, (FOLD_ROW, fold.encode()))
        done = node.loop.run_in_executor(self._thread, write)
        done.add_done_callback(partial(self._written, shard))

    def _written(self, shard: int, done: asyncio.Future[None]) -> None:
        self._making.discard(shard)
        if done.cancelled() or self._closed:
            return
        if (error := done.exception()) is not None:  # again with the next second
            if self._repeats.news((shard,), self._node.loop.time()):
                log.warning("cannot write the initial state of a new shard", shard=shard, error=str(error))
            return
        self._made.add(shard)
        log.info("wrote the initial state of a new shard", shard=shard)
        if self._table is not None:
            self._say(self._table)

    def _say(self, table: Table) -> None:
        known = table.shards
        going = self._dropped_by.keys() - self._gone  # they have no leader either
        self._node.machine.status.say(
            "shards", base=table.base.shards, dropped=sorted(self._gone),
            forming=[s for s, shard in sorted(known.items()) if shard.state == State.FORMING or s in going],
            born={str(shard): list(known[shard].voters) for shard in sorted(self._made) if shard in known})

    def close(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=True)


class BirthingNode(BornNode, Protocol):
    applies: Applies


class BirthingRole(Protocol):
    placement: Placement
    reports: Reports
    feeds: Feeds
    writes: Writes
    links: NodeLinks
    fold: Fold
    sequencer: Sequencer[Any] | None

    @property
    def node(self) -> BirthingNode: ...

    @property
    def sequencing(self) -> bool: ...


class Birthing:
    def __init__(self, role: BirthingRole) -> None:
        self._role = role
        self._born = Born(role.node)
        self._births: Births | None = None  # while this node sequences
        self._dropped: set[int] = set()  # as this term has logged, whether it is applied or not
        self._emptied: dict[int, int] = {}  # shards without keys, and what was logged by then in this term
        self._disks = Disks(role.links)  # of other node 0s

    def begin(self) -> None:
        """This node begins to sequence."""
        self._emptied.clear()
        self._disks.forget()
        self._births = Births(self._role.node.settings.birth_timeout_ms)

    def end(self) -> None:
        self._births = None
        if self._dropped:  # what was logged may be lost: then another leader goes on with these shards
            self._dropped.clear()
            self._in_order(self._role.placement.running)

    def follow(self, table: Table, fold: Fold) -> None:
        """A table is applied here; ``fold``: of the same place."""
        role = self._role
        self._in_order(role.placement.running)
        role.reports.forget_early((role.placement.forming,))
        role.feeds.follow(role.placement.running, role.placement.forming)
        self._born.look(table, fold)

    def _in_order(self, shards: Iterable[int]) -> None:
        # G13: a table that is applied before the record of a drop still has the shard
        self._role.reports.follow(tuple(shard for shard in shards if shard not in self._dropped))

    def step(self) -> None:
        """Log what is due: each heartbeat, and when the table or a report is news."""
        role = self._role
        births, leader, sequencer = self._births, role.writes.leader, role.sequencer
        if not role.placement.unsettled or births is None or leader is None or sequencer is None:
            return
        if not role.sequencing:
            return
        told = leader.told
        if told.table is None:
            return
        for step in births.look(told.table, role.reports.early, role.node.now_ms()):
            retires = told.table.shards[step.shard].state == State.RETIRING
            if retires and told.table.emptied and not self._is_safe(step.shard):
                continue
            # by its tail, which holds to what may be put in order behind it (G12, G13)
            sequencer.tail.append(leader.log_shard(step.shard, step.state), [], [])
            log.info("a shard's state changes", shard=step.shard, state=step.state.name.lower())
            if step.state == State.DROPPED:  # G13: from here on no report of it counts
                self._dropped.add(step.shard)
                self._in_order(role.placement.running)
            if step.again and (facts := told.facts()).settled:
                shard = next_id(told.table)
                log.warning("a shard did not serve in time; trying another id", shard=step.shard, other=shard)
                slot = next_slot(told.table)
                sequencer.tail.append(leader.log_shard(shard, State.FORMING, slot, facts.voters), [], [])
            role.node.wake()

    def _is_safe(self, shard: int) -> bool:
        """G10: what has moved away from a shard is on the disks of a majority of its new owners."""
        node, floors = self._role.node, self._role.feeds.floors
        voters = node.raft.configuration.voters
        emptied_at = self._emptied.setdefault(shard, node.raft.last_index)
        have = self._disks.have(voters, 0, emptied_at)
        if node.store.durable_position.order_index >= emptied_at:  # shard 0 may be one of them
            have |= {node.raft.id} & voters
        return 2 * len(have) > len(voters) and floors.on_disk(voters) >= emptied_at

    def second(self) -> None:
        """A genesis that could not be written is tried again, and a drop asks what it waits for."""
        role = self._role
        if role.placement.table.has_born and not role.node.applies.busy:  # the fold is the state's
            self._born.look(role.placement.table, role.fold)
        if self._births is not None and self._emptied and role.placement.table.emptied:
            raft = role.node.raft
            self._disks.ask(raft.configuration.voters - {raft.id}, 0, max(self._emptied.values()))
        else:
            self._disks.release()

    def close(self) -> None:
        self._born.close()
