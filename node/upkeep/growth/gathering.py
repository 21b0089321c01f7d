"""Reports of nodes' load: what each sends to the leader of shard 0, and what that leader has heard.

Each host's node 0 tells CPUs and disk by itself (LOAD). The leader asks other shards' leaders for theirs
(LOADS), and for the sample only where it may be needed: it is large.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from cluster.features.births import running
from cluster.features.growth import BIRTHS, MOVES, members_of
from cluster.growth.bounds import LOOK_S, Bounds
from cluster.growth.facts import MOST_MARKS, Facts, Host, Shard
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.wire.frames import LOADS_SINCE, PeerKind
from cluster.wire.messages import Method, Status
from node.machine import NodeMachine
from node.upkeep.growth.host import CpuShare, HostLook
from node.upkeep.owner import UpkeepNode

if TYPE_CHECKING:
    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.replica.roles.role import Role
    from node.serving.auth.admission import Admission
    from node.slicing.slicer import Slicer
    from node.storage import StateStore
    from node.upkeep.group.growing import Growing

_ALL, _FIGURES = (lambda version: b"\1"), (lambda version: b"\0")  # whether the sample is wanted
_KNOWN_S = 3 * LOOK_S  # so long what was told counts
_MAYBE_HOT = 0.8  # of what is hot: the sample may be needed at the next look
_SILENT_ELECTIONS = 3


class GatheringNode(UpkeepNode, Protocol):
    role: Role
    admission: Admission
    slicer: Slicer


class Gathering:
    def __init__(self, node: GatheringNode, settings: NodeSettings, machine: NodeMachine, store: StateStore,
                 raft: Raft, growing: Growing, limits: Bounds) -> None:
        self._node = node
        self._settings = settings
        self._machine = machine
        self._store = store
        self._raft = raft
        self._growing = growing
        self._limits = limits
        self._cpu = CpuShare(machine)
        self._host = HostLook(settings.data_dir)
        self._hosts: dict[int, tuple[Host, int]] = {}  # what they told, and when
        self._shards: dict[int, tuple[Shard, int]] = {}
        self.table = self._applied() if not settings.shard else Table.initial(Base(1, 1))

    def _applied(self) -> Table:
        common = self._settings.common
        table = self._store.placement()
        return table if table is not None else Table.initial(Base(common.shard_count, common.placement_depth))

    # -- what this node tells

    def own(self, *, sampled: bool) -> Shard:
        """Of this node, which leads its shard."""
        node, raft, store, now_ms = self._node, self._raft, self._store, self._machine.now_ms()
        sampling = node.admission.sampling
        counts = store.counts
        return Shard(
            leader=self._settings.common.member_id, term=raft.term, cpu=self._cpu.now(),
            rate=sampling.sample.rate(now_ms) if sampling is not None else 0.0, behind=self._behind(now_ms),
            live_bytes=store.size_in_use_bytes(), keys=max(counts.keys(), 0),
            sample=tuple(sampling.sample.weighed(now_ms)) if sampling is not None and sampled else (),
            marks=tuple(counts.marks(MOST_MARKS)) if sampled else (),
            front=(
                sampling.sample.joined(now_ms) if sampling is not None and not self._settings.shard else 0.0))

    def _behind(self, now_ms: int) -> int:
        raft, worst = self._raft, 0
        silent_ms = _SILENT_ELECTIONS * self._settings.common.election_timeout_ms
        peers = raft.peers()
        for voter in raft.configuration.voters - {raft.id}:
            peer = peers.get(voter)
            if peer is None or now_ms - peer.heard_ms > silent_ms:
                return -1
            worst = max(worst, raft.last_index - peer.match)
        return worst

    def tell(self) -> None:
        """This host's, to the leader of shard 0."""
        host, now_ms = self._host.look(self._machine.monotonic()), self._machine.now_ms()
        node, leader = self._node, self._raft.leader_id
        if self._raft.is_leader:
            self._hosts[self._settings.common.member_id] = host, now_ms
        elif leader and node.peers.versions.get(leader, 0) >= LOADS_SINCE:
            node.peers.send(leader, PeerKind.LOAD.byte, host.encode())

    # -- what the leader hears

    def told(self, member_id: int, data: bytes) -> None:
        """A host's node 0 tells. ValueError: it makes no sense."""
        self._hosts[member_id] = Host.decode(data), self._machine.now_ms()

    def ask(self) -> None:
        """The other shards' leaders; what they say is there at the next look."""
        hot = _MAYBE_HOT * self._limits.hot
        for shard in running(self.table):
            known = self._shards.get(shard)
            sampled = known is None or known[0].cpu >= hot
            if shard == 0:
                self._shards[0] = self.own(sampled=sampled), self._machine.now_ms()
            else:
                self._node.role.ask_leader(
                    shard, Method.LOADS, _ALL if sampled else _FIGURES, partial(self._came, shard))

    def _came(self, shard: int, status: int, body: bytes) -> bool:
        if status == Status.OK:
            try:
                self._shards[shard] = Shard.decode(body), self._machine.now_ms()
            except ValueError:
                self._shards.pop(shard, None)
        return False  # nothing is to be done at once

    def older(self) -> tuple[str, ...]:
        """Members whose programs do not tell."""
        spoken, hosts = self._growing.growth.spoken, self._node.roster.table.hosts
        return tuple(
            hosts[i].name or f"{i:x}" for i in members_of(hosts)
            if i not in spoken or spoken[i].highest < LOADS_SINCE)

    def facts(self) -> Facts:
        now_ms, hosts = self._machine.now_ms(), self._node.roster.table.hosts
        members = members_of(hosts)
        level, since_ms = self._growing.growth.level, now_ms - int(_KNOWN_S * 1000)
        there, room = set(running(self.table)), self._growing.room()
        for shard in self._shards.keys() - there:
            del self._shards[shard]
        return Facts(
            now_ms, self.table,
            {i: host for i, (host, at) in self._hosts.items() if at >= since_ms and i in members},
            {i: hosts[i].name or f"{i:x}" for i in members},
            {shard: told for shard, (told, at) in self._shards.items() if at >= since_ms},
            self._store.compact_revision, self._node.roster.changes.settled, level >= BIRTHS, level >= MOVES,
            any(True for _ in self._store.alarms()), min(room.quota, room.disk), self.older())
