"""The links to one shard's nodes: its leader, the replica for reads, and keeping the links open.

The leader is what the live link with the highest term names. NOT_LEADER answers update the same knowledge.
While no leader is known, links to all hosts are kept open; some time after an election unneeded ones end
(decision 34).

A leader whose process stands still for a second or two is still the leader, as a rule. So its link is not
ended after an election timeout of silence, which would leave the fate of its writes unknown. It gets nothing
new (it is *quiet*) but questions about its host, and ends after a second election timeout, or once a leader
of a later term is known.

Reads go to the own host's node (any up-to-date replica may answer, architecture section 4). They go
elsewhere while that is down or far behind the leader, and where there is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cluster.wire.link import Listening
from proxy.routing.links import REFUSED, Link, Receiver

# (receiver, shard, member ID) -> a connecting link; None while this host has not heard where that one is
Connect = Callable[[Receiver, int, int], Link | None]

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 1.0
_OWN_BACKOFF_MOST_S = 0.2
_REFUSED_BACKOFF_S = 5.0  # what a node refuses a front for is mended by people
_UNUSED_S = 10.0  # for so long after an election unneeded links are kept
# a local socket takes a connection at once, or no process listens (ZeroMQ does not say which)
_OWN_CONNECT_S = 0.1

# Entries that the own node lacks of what the leader applied: reads there would wait, or show old states for
# long. A leader logs far fewer between two STATEs.
_FAR_BEHIND = 1000
_NEAR_AGAIN = 100

_HELD_S = 0.1  # two of the router's sweeps: a later one was held


class ShardRoute:
    __slots__ = ("_applied", "_backoff_s", "_connect", "_dead_after_s", "_kept_up_at", "_late", "_led_at",
                 "_listening", "_receiver", "_retry_at", "home", "known_leader", "leader", "leader_changes",
                 "leader_link", "leader_since", "links", "members", "own", "queue", "reads", "replica",
                 "shard", "term", "troubles", "wanted")

    def __init__(self, shard: int, own: int, members: Iterable[int], connect: Connect, receiver: Receiver,
                 dead_after_s: float) -> None:
        self.shard = shard
        self.own = own  # member ID of this host, 0 on a machine without one
        self.members = tuple(members)
        self.links: dict[int, Link] = {}
        self.leader = 0  # member ID as the freshest live node says; 0: nobody knows one
        self.term = 0
        self.known_leader = 0  # the last one there was, for counting changes
        self.leader_since = 0.0
        self.leader_changes = 0
        self._led_at = 0.0  # when there was a link to the leader last
        self.leader_link: Link | None = None  # up, to the leader
        self.replica: Link | None = None  # up, where reads go
        self.home: Link | None = None  # up, to the own host's node
        self.queue: deque[Any] = deque()  # router.Waiting for a leader
        self.reads: deque[Any] = deque()  # router.Waiting for any replica
        self.wanted: set[int] = set()  # members to which a link is kept although nothing is asked of it yet
        self._connect = connect
        self._receiver = receiver
        self._dead_after_s = dead_after_s
        self._listening = Listening(max(dead_after_s / 4, _HELD_S))
        self._retry_at: dict[int, float] = {}
        self._backoff_s: dict[int, float] = {}
        self._applied = 0  # by the replica, at the tick before
        self._late = False  # the own node is far behind
        self._kept_up_at = 0.0  # when the replica last applied something, or the leader nothing either
        self.troubles: dict[int, str] = {}  # by member without a link, why the last one ended

    def choose(self, now: float) -> None:
        """Work out leader and replica from what the live links have said last."""
        leader, term = 0, 0
        for link in self.links.values():
            if link.heard and link.leader and link.term > term:
                leader, term = link.leader, link.term
        if leader and (leader != self.leader or term != self.term):
            self._elected(leader, term, now)
        self.leader = leader
        if leader:
            self.term = term
            if leader not in self.links:
                self.ensure(leader, now)
        self.leader_link = self._usable(leader)
        self.home = home = self._usable(self.own)
        if home is not None and (self.leader_link is None or (home.leader and not self._is_late(home))):
            self.replica = home
        elif home is not None:
            # the own node is late, or cut off from a leader that this front can reach
            self.replica = self.leader_link
        elif self.replica is None or not self.replica.usable or self._installs(self.replica):
            others = (link for link in self.links.values() if link.usable)
            self.replica = self.leader_link or max(others, key=lambda link: link.applied, default=None)

    def _is_late(self, home: Link) -> bool:
        """Whether the own node is so far behind the leader that this answers reads in its place. As a rule it
        was down for long, and reads its log."""
        if self.leader_link is not None:
            behind = self.leader_link.applied - home.applied
            self._late = behind > (_NEAR_AGAIN if self._late else _FAR_BEHIND)
        return self._late

    def _installs(self, replica: Link) -> bool:
        """Whether it lacks what was committed before this front heard of the leader: a new member, as a rule,
        which may be a minute at it. To itself it seems complete."""
        return self.leader_link is not None and replica.applied < self.leader_link.began

    def _elected(self, leader: int, term: int, now: float) -> None:
        self.leader_since = now
        if leader != self.known_leader or term != self.term:
            self.leader_changes += 1
        self.known_leader = leader
        self.leader, self.term = leader, term
        tried = self.links.get(leader)  # an elected host runs, whatever its link saw before
        if tried is not None and not tried.greeted:
            tried.close("tried too early")
        self._retry_at.pop(leader, None)
        self._backoff_s.pop(leader, None)

    def _usable(self, member: int) -> Link | None:
        link = self.links.get(member)
        return link if link is not None and link.usable else None

    def follow(self, members: Iterable[int]) -> None:
        """Members have changed. A removed host's link stays while the host does: it may lead yet, and owe
        answers."""
        self.members = tuple(members)

    def end(self) -> None:
        """The shard is dropped: no link is opened any more."""
        self._connect = lambda receiver, shard, member: None

    def close(self, reason: str) -> None:
        """End every link."""
        for link in tuple(self.links.values()):
            link.close(reason)

    def unsent(self) -> list[Any]:
        """Remove what waits for a leader or a replica."""
        unsent = [*self.queue, *self.reads]
        self.queue.clear()
        self.reads.clear()
        return unsent

    @property
    def nearest(self) -> Link | None:
        """The own host's node, also while that knows no leader, or where reads go without it."""
        return self.home or self.replica

    @property
    def has_leader(self) -> bool:
        """Whether this host knows a leader; its own node's word counts, where that answers."""
        own = self.links.get(self.own)
        return own.leader != 0 if own is not None and own.heard else self.leader != 0

    def reaches_any(self) -> bool:
        return any(link.up for link in self.links.values())

    def in_vain(self) -> int:
        """How many members were tried since they answered last."""
        return sum(member in self.troubles for member in self.members)

    def ensure(self, member: int, now: float) -> None:
        """Open a link to a host's node, unless there is one or the last attempt was just now."""
        if member not in self.members and member != self.leader:
            return
        if member in self.links or now < self._retry_at.get(member, 0.0):
            return
        self._retry_at[member] = now + self._backoff_s.get(member, _BACKOFF_FIRST_S)
        if (link := self._connect(self._receiver, self.shard, member)) is not None:
            self.links[member] = link

    def lost(self, link: Link, now: float, reason: str = "") -> None:
        """A link has ended; a new one is opened after a back-off."""
        self.troubles[link.member_id] = reason
        if self.links.get(link.member_id) is link:
            del self.links[link.member_id]
        most = _OWN_BACKOFF_MOST_S if link.member_id == self.own else _BACKOFF_MOST_S
        backoff = min(self._backoff_s.get(link.member_id, _BACKOFF_FIRST_S / 2) * 2, most)
        self._backoff_s[link.member_id] = backoff
        self._retry_at[link.member_id] = now + (_REFUSED_BACKOFF_S if reason.startswith(REFUSED) else backoff)
        if self.replica is link:
            self.replica = None
        if self.home is link:
            self.home = None
        self.choose(now)

    def opened(self, link: Link, now: float) -> None:
        self._backoff_s.pop(link.member_id, None)
        self.troubles.pop(link.member_id, None)
        self.choose(now)

    def upkeep(self, now: float) -> None:
        """Every tick of the clock: end silent links, open wanted ones."""
        listening = self._listening
        heard_till = listening.look(now)
        for link in list(self.links.values()):
            limit_s = self._dead_after_s if link.greeted or link.member_id != self.own else _OWN_CONNECT_S
            if link.silent(heard_till, limit_s) and not self._waits_for(link, heard_till, now):
                link.close("silent" if link.up else link.trouble or "no connection")
            elif listening.held_s:
                link.excuse(listening.held_s, now)
        self._leave_a_replica_that_stands(now, listening.held_s > 0)
        if self.own:
            self.ensure(self.own, now)
        if self.leader:
            self.ensure(self.leader, now)
        if self.leader_link is not None:
            self._led_at = now
            if now - self.leader_since > _UNUSED_S:
                self._drop_unused()
        # no leader is known, or the node that names it is cut off: a learner never forgets its leader
        lost = not self.leader or now - self._led_at > self._dead_after_s
        if lost or not self.own:  # without an own node: another must answer if the leader's host fails
            for member in self.members:
                self.ensure(member, now)

    def _leave_a_replica_that_stands(self, now: float, held: bool) -> None:
        """One whose disk hangs, or that came to install a state, says STATE for as long. The own host's
        stays, as etcd's member would. Only time counts in which the leader goes on: a long apply holds up all
        of them."""
        replica, leads, limit_s = self.replica, self.leader_link, self._dead_after_s
        before, self._applied = self._applied, replica.applied if replica is not None else 0
        if (held or self.home is not None or replica is None or leads is None or leads.stands_s >= limit_s
                or not (replica.stands_s or before == replica.applied < leads.applied)):
            self._kept_up_at = now
        elif replica.stated_at - self._kept_up_at > 2 * limit_s:  # its STATE may wait behind a large answer
            replica.close("it applies nothing")

    def _waits_for(self, link: Link, heard_till: float, now: float) -> bool:
        """Whether a silent link is a leader's that may go on."""
        if not link.up or link.leader != link.member_id or link.silent(heard_till, 2 * self._dead_after_s):
            return False
        if not link.quiet:
            link.quiet = True
            self.choose(now)
        return self.leader in (0, link.member_id) or self.term <= link.term

    def _drop_unused(self) -> None:
        """Each link brings a STATE and a wake-up four times in an election timeout (D12). The own node names
        the leader."""
        if self.home is None or not self.home.leader:
            return
        for link in list(self.links.values()):
            if (link not in (self.home, self.leader_link, self.replica) and link.member_id not in self.wanted
                    and not link.pending and not link.parts):
                link.close("nothing is asked of it")
