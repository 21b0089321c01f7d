"""Changes of members at the leader of shard 0: granted one after the other, logged, and carried through all
groups.

A wish (add, remove, update, promote) that ``cluster.members.checks`` grants becomes a row of the table, in
the order. It is judged in its turn, by what the groups' leaders and its client's rights are then. Once the
row is applied, every host shows it, and it survives every crash. What the groups then have to do follows from
the table alone (``cluster.members.goals``). The leader of shard 0 asks the groups' leaders where they stand:
every heartbeat while anything is due, and for the change whose turn it is. A new leader goes on from there.

A wish is answered when it is true. To add or update: once the row is applied. To promote: once the host
votes in every group. To remove: once group 0, the last one (H12), has committed that the host is out, for
then a majority of the rest has that on disk. A leader that removes itself hands over first, so it waits as
a follower. A follower that was asked to promote asks the groups' leaders itself. A wish that outlives its
time gets no answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
from google.protobuf.message import Message

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.validate import parse
from cluster.features.auth.judge import judge
from cluster.features.auth.principal import NOBODY, Principal
from cluster.members import checks, goals
from cluster.members.host_changes import HostChange, Kind
from cluster.members.table import Host
from cluster.pb import rpc_pb2
from cluster.raft import Configuration, Role
from cluster.wire.messages import (
    HEAD,
    LEADER,
    MEMBER_ADD,
    MEMBER_PROMOTE,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MEMBERS_LAX,
    Method,
    Status,
)
from node.links.fronts import FrontLink, say_not_leader
from node.members.group import GroupNode, Standing, asked_for, carry_out, request, standing

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from node.machine import NodeMachine
    from node.replica.roles.role import Role as NodeRole
    from node.replica.writes import Writes
    from node.serving.reads import Reads

log = structlog.get_logger("members")

_MOST_WISHES = 64


@dataclass(slots=True)
class Wish:
    link: FrontLink | None  # None: an internal one
    rid: int
    kind: int
    body: bytes
    strict: bool = True  # whether the quorum is looked at: the asked host's setting
    row: bytes = b""  # of the table, once granted
    principal: Principal = NOBODY
    number: int = 0  # of the first question that was asked since it came


class ChangesNode(GroupNode, Protocol):
    machine: NodeMachine
    writes: Writes
    reads: Reads
    role: NodeRole


class Changes:
    """Of each node. Wishes are submitted to node 0 alone; every group's leader carries out what it is
    asked."""

    def __init__(self, node: ChangesNode) -> None:
        self._node = node
        self._wishes: deque[Wish] = deque()
        self._logged: Wish | None = None  # its row is logged, and not applied yet
        self._unfinished: list[tuple[Wish, HostChange]] = []  # applied; answered when the groups follow
        self._questions = 0  # asked of groups' leaders
        self._heard: dict[int, int] = {}  # by group: the latest question that was answered
        self._newest_term = 0  # of the leaders of shard 0 that asked for changes of this group
        self._asking: list[tuple[FrontLink, int]] = []  # for a change of it that is not committed yet
        self._groups: dict[int, Standing] = {}
        self._asked: dict[int, tuple[HostChange | None, float]] = {}  # by group: what for, and when
        self._idle = False  # every group is what the table says
        # the change that is to begin, its configuration, and the order record that was committed last by then
        self._begins: tuple[HostChange, Configuration, int] | None = None

    @property
    def settled(self) -> bool:
        """Whether no change of members is logged, asked for or under way (G14)."""
        return self._idle and self._logged is None and not self._wishes

    def shards_changed(self) -> None:
        """The cluster has other shards: their groups follow the table, too."""
        shards = self._node.role.shards
        for known in (self._groups, self._asked, self._heard):
            for shard in [shard for shard in known if shard not in shards]:
                del known[shard]
        self._idle = False
        self._look()  # at once: a drop may leave nothing due, and no shard is added before that is known

    # -- wishes

    def submit(self, link: FrontLink, rid: int, body: bytes, principal: Principal = NOBODY) -> None:
        """Take in a wish: its kind (u8) and the request. EtcdError."""
        if not self._leads:
            say_not_leader(self._node.raft, link, rid)
            self._node.mark_dirty(link)
        elif len(self._wishes) >= _MOST_WISHES:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        else:
            kind, lax = body[0] & ~MEMBERS_LAX, body[0] & MEMBERS_LAX
            self._wishes.append(
                Wish(link, rid, kind, body[1:], not lax, principal=principal, number=self._questions + 1)
            )
            self._ask_anew()

    def want(self, host: Host) -> None:
        """A row that no client asked for, granted in its turn: for drills."""
        if self._leads and not self._wishes and self._logged is None:
            self._wishes.append(Wish(None, 0, 0, b"", row=host.encode(), number=self._questions + 1))
            self._ask_anew()

    def _ask_anew(self) -> None:
        """A wish came: it is judged by answers from now on."""
        self._idle = False
        self._asked.clear()
        self._look()

    @property
    def _leads(self) -> bool:
        node = self._node
        leader = node.writes.leader
        return leader is not None and node.raft.role is Role.LEADER and node.raft.term == leader.term

    def leading(self) -> None:
        """This node begins to lead shard 0, and goes on with what another leader began."""
        self._groups.clear()
        self._asked.clear()
        self._begins = None
        self._idle = False
        self._look()

    def another_leads(self, shard: int) -> None:
        """Another host leads this shard's group: ask it at once for what is due."""
        self._asked.pop(shard, None)
        if not self._idle:
            self._look()

    def resign(self) -> None:
        """This node ceases to lead. A waiting wish was not logged; a logged one has an unknown fate (I23).
        A change that is applied goes on elsewhere, and is observed from here."""
        self._tell_asking()
        wishes, self._wishes = self._wishes, deque()
        for wish in wishes:
            self._say(wish, Status.NOT_LEADER, LEADER.pack(self._node.raft.leader_id, self._node.raft.term))
        if self._logged is not None:
            wish, self._logged = self._logged, None
            self._say(wish, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())

    def _say(self, wish: Wish, status: int, body: bytes) -> None:
        if wish.link is not None:
            wish.link.answer(wish.rid, status, body)
            self._node.mark_dirty(wish.link)

    def applied(self, rows: list[bytes]) -> None:
        self._idle = False
        wish = self._logged
        if wish is not None and wish.row in rows:
            self._logged = None
            self._asked.clear()
            for other in self._wishes:  # earlier answers do not count
                other.number = max(other.number, self._questions + 1)
            if wish.link is not None:
                follows = {MEMBER_REMOVE: Kind.REMOVE, MEMBER_PROMOTE: Kind.PROMOTE}.get(wish.kind)
                if follows is None:
                    self._say_done(wish)
                else:
                    self._unfinished.append((wish, HostChange(follows, Host.decode(wish.row).member_id)))
        self._look()
        self._finish()

    def _finish(self) -> None:
        if not self._unfinished:
            return
        waiting = []
        for wish, change in self._unfinished:
            if self._finished(change):
                self._say_done(wish)
            elif wish.link is not None and wish.link.awaits(wish.rid):
                waiting.append((wish, change))
        self._unfinished = waiting

    def _finished(self, change: HostChange) -> bool:
        group_0 = self._node.raft.committed_configuration
        if change.kind is Kind.REMOVE:  # H12: it leaves group 0 last
            return change.member_id not in group_0.members()
        return change.member_id in group_0.voters and self._everywhere(
            lambda group: change.member_id in group.committed.voters, first=1)

    def _everywhere(self, holds: Callable[[Standing], bool], first: int = 0) -> bool:
        return all(shard in self._groups and holds(self._groups[shard])
                   for shard in self._node.role.shards if shard >= first)

    def _say_done(self, wish: Wish) -> None:
        head = HEAD.pack(0, self._node.raft.term)
        self._say(wish, Status.OK, head + self._answer(wish).SerializeToString())

    def left(self) -> None:
        """Group 0 has let this host go: it hears nothing more."""
        own = HostChange(Kind.REMOVE, self._node.raft.id)
        for wish, change in self._unfinished:
            if change == own:
                self._say_done(wish)
        self._unfinished = [(wish, change) for wish, change in self._unfinished if change != own]

    def _answer(self, wish: Wish) -> Message:
        members = self._node.roster.listed()
        if wish.kind == MEMBER_ADD:
            new = Host.decode(wish.row)
            return rpc_pb2.MemberAddResponse(
                member=rpc_pb2.Member(ID=new.member_id, peerURLs=new.peer_urls, isLearner=new.learner),
                members=members)
        kind = {
            MEMBER_REMOVE: rpc_pb2.MemberRemoveResponse, MEMBER_UPDATE: rpc_pb2.MemberUpdateResponse,
            MEMBER_PROMOTE: rpc_pb2.MemberPromoteResponse}[wish.kind]
        return kind(members=members)

    def _grant(self) -> None:
        node = self._node
        leader = node.writes.leader
        assert leader is not None
        while self._wishes:
            wish = self._wishes.popleft()
            if wish.link is None and leader.told.forming:  # G14, as below
                continue
            if wish.link is not None:
                if not wish.link.awaits(wish.rid):
                    continue  # its client was told that it took too long
                try:
                    judge(leader.auth, wish.principal, Method.MEMBERS, wish.body, node.store)
                    wish.row = self._judged(wish, leader).encode()
                except EtcdError as e:
                    node.reads.refuse(wish.link, wish.rid, e)
                    continue
            self._logged = wish
            leader.append_host(wish.row)
            node.wake()
            return

    def _judged(self, wish: Wish, leader: Leader) -> Host:
        node = self._node
        if forming := leader.told.forming:  # G14: as logged
            raise errors.SHARD_BUSY.error(shard=forming, state="forming")
        settings, table = node.settings, node.roster.table
        election_ms = settings.common.election_timeout_ms
        facts = checks.Facts(
            node.roster.started(), node.roster.connected_s,
            lambda member_id: self._everywhere(lambda group: member_id in group.committed.voters),
            lambda member_id: self._everywhere(lambda group: group.alive(member_id, election_ms)),
            self._share, wish.strict, settings.max_learners, settings.common.alone)
        if wish.kind == MEMBER_ADD:
            new = parse(rpc_pb2.MemberAddRequest.FromString, wish.body)
            return checks.add(table, facts, new.peerURLs, new.isLearner, int(node.machine.wall_time()))
        if wish.kind == MEMBER_REMOVE:
            return checks.remove(table, facts, parse(rpc_pb2.MemberRemoveRequest.FromString, wish.body).ID)
        if wish.kind == MEMBER_UPDATE:
            moved = parse(rpc_pb2.MemberUpdateRequest.FromString, wish.body)
            return checks.alike(
                table, checks.update(table, moved.ID, moved.peerURLs), settings.common.peer_tls is not None)
        return checks.promote(table, facts, parse(rpc_pb2.MemberPromoteRequest.FromString, wish.body).ID)

    # -- the groups

    def asked(self, link: FrontLink, rid: int, body: bytes) -> None:
        """RECONFIGURE: the leader of shard 0 asks the leader of this group. Answered once the change is
        committed, or with the next heartbeat."""
        raft = self._node.raft
        if raft.role is Role.LEADER:
            change, term = asked_for(body)
            self._asking.append((link, rid))
            self._newest_term = max(self._newest_term, term)
            if change is not None and term in (0, self._newest_term):
                self._carry_out(change)
            if change is not None and raft.configuration != raft.committed_configuration:
                return
        else:
            self._asking.append((link, rid))
        self._tell_asking()

    def _tell_asking(self) -> None:
        node, asking = self._node, self._asking
        if asking:
            self._asking = []
            for link, rid in asking:
                if node.raft.role is Role.LEADER:
                    link.answer(rid, Status.OK, standing(node.raft, node.now_ms()).encode())
                else:
                    say_not_leader(node.raft, link, rid)
                node.mark_dirty(link)

    def _carry_out(self, change: HostChange) -> None:
        carry_out(self._node, change, self._node.now_ms(), self._node.settings.common.election_timeout_ms)

    def look(self) -> None:
        """Each heartbeat, and when other hosts have more on disk."""
        self._tell_asking()
        self._finish()
        if self._leads:
            self._forget()
            if not self._idle:
                self._ask_all()
                self._look()
        elif any(change.kind is Kind.PROMOTE for _, change in self._unfinished):
            self._ask_all()

    def _forget(self) -> None:
        """Drop wishes that took too long: a group without a leader lets none have its turn (I23)."""
        if self._wishes:
            self._wishes = deque(
                wish for wish in self._wishes if wish.link is None or wish.link.awaits(wish.rid))

    def moved(self) -> None:
        """The table, or this group's configuration, has changed."""
        self._idle = False
        self._tell_asking()
        if self._leads:
            self._look()
        self._finish()

    def _ask_all(self) -> None:
        for shard in self._node.role.shards:
            if shard and (shard not in self._asked or self._overdue(shard)):
                self._ask(shard, None)

    def _overdue(self, shard: int) -> bool:
        heartbeat_s = self._node.settings.common.heartbeat_interval_ms / 1000
        return self._node.loop.time() - self._asked[shard][1] >= heartbeat_s

    def _look(self) -> None:
        node = self._node
        if not self._leads:
            return
        self._groups[0] = standing(node.raft, node.now_ms())
        shards = node.role.shards
        if any(shard not in self._groups for shard in shards):
            self._ask_all()
            return
        hosts, committed = node.roster.table.hosts, [self._groups[shard].committed for shard in shards]
        if self._logged is not None:
            return  # its row may say what comes next
        settled = goals.settled(hosts, committed, [self._groups[shard].in_effect for shard in shards])
        due = goals.due(
            hosts, committed, self._caught_up, may_promote=not self._wishes, covered=self._covered)
        if due is not None:
            if due.change == HostChange(Kind.REMOVE, node.raft.id):
                self._carry_out(due.change)  # H12: it hands over; others may have no way to it any more
            for group in due.groups:
                self._ask(shards[group], due.change)
        elif self._wishes:
            if not settled:
                return
            if all(self._heard.get(shard, 0) >= self._wishes[0].number for shard in shards if shard):
                self._grant()
            else:
                self._ask_all()
        else:
            self._idle = settled and not any(
                not host.learner and host.member_id in committed[0].learners
                for host in node.roster.table.members
            )

    def _ask(self, shard: int, change: HostChange | None) -> None:
        node, now = self._node, self._node.loop.time()
        asked = self._asked.get(shard)
        if asked is not None and asked[0] == change and not self._overdue(shard):
            return
        self._asked[shard] = change, now
        if change is not None:
            log.info("changing the members of a group", shard=shard, change=change.kind.name.lower(),
                     member=f"{change.member_id:x}")
        if shard == 0:
            if change is not None:
                self._carry_out(change)
            return
        self._questions += 1
        node.role.ask_leader(
            shard, Method.RECONFIGURE, partial(request, change, node.raft.term if self._leads else 0),
            partial(self._told, shard, self._questions))

    def _told(self, shard: int, question: int, status: int, data: bytes) -> bool:
        # G13: of a shard that was dropped meanwhile it would count for ever
        counts = shard in self._node.role.shards
        if counts and status == Status.OK and (self._leads or self._unfinished):
            try:
                said = Standing.decode(data)
            except ValueError as e:
                log.warning("dropped a broken answer of a group's leader", shard=shard, error=str(e))
                return False
            if not said.sure:
                return False  # I21: what it takes for committed may be older than what is known
            known = self._groups.get(shard)
            if known is None or said.term >= known.term:
                self._groups[shard] = said
                self._heard[shard] = max(question, self._heard.get(shard, 0))
                if known is None or known.committed != said.committed or self._wishes:
                    self._look()
                    self._finish()
        return False

    def _caught_up(self, member_id: int) -> bool:
        election_ms = self._node.settings.common.election_timeout_ms
        peers = [group.peers.get(member_id) for group in self._groups.values()]
        return all(p is not None and p.behind <= goals.CAUGHT_UP and p.silent_ms < election_ms for p in peers)

    def _covered(self, change: HostChange, target: Configuration) -> bool:
        """Whether a majority of the voters after a change has durably applied all that was in order when
        it became due, in every shard (I17). Records that any host has dropped by then are not later ones."""
        node, begins = self._node, self._begins
        if begins is None or begins[:2] != (change, target):
            begins = self._begins = change, target, node.raft.commit_index
            log.info("a member change waits until a majority of the new voters has the order on disk",
                     change=change.kind.name.lower(), member=f"{change.member_id:x}", order_index=begins[2])
        return node.role.covers(target.voters, begins[2])

    def _share(self, member_id: int) -> float:
        """The share of the log that it has, of the group where it has least; -1: unknown."""
        if len(self._groups) < len(self._node.role.shards):
            return -1.0
        peers = [group.peers.get(member_id) for group in self._groups.values()]
        return min((p.share if p is not None else -1.0 for p in peers), default=-1.0)
