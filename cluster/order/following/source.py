"""Which feed a node takes (H13): its own host's node 0, or another's while that one is no good."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class FeedSource:
    def __init__(self, own: int, election_s: float) -> None:
        self._own = own
        self._election_s = election_s
        self._patience_s = 2 * election_s  # with a feed that is worse than another one
        self._hunger_s = 3 * election_s  # until a state is asked for although records may exist
        self._failed: dict[int, float] = {}  # member -> when its feed last failed
        self._worse_since = 0.0  # its node 0 knows no sequencer, or another one has done better
        self.starved: set[int] = set()  # members that do not keep the order records wanted here
        self._starved_since = 0.0
        self.stands = False  # this feed's node 0: it applies nothing, though more is committed
        self._applied = 0  # by it
        self._moved_at = self._looked_at = 0.0
        self._level = True  # the own host's one has applied what was applied here an election timeout ago
        self._goal = 0  # what it has to apply for that
        self._level_at = 0.0

    def look(self, commit: int, applied: int, now: float) -> None:
        """Each heartbeat: how far the node 0 says it is whose feed is taken."""
        if applied != self._applied or applied >= commit:
            self._moved_at = now
        elif now - self._looked_at > self._election_s / 2:  # nobody looked: only what is seen counts
            self._moved_at += now - self._looked_at
        self._applied, self._looked_at = applied, now
        self.stands = now - self._moved_at >= self._election_s

    def look_home(self, applied: int, order_index: int, now: float) -> None:
        """Each heartbeat: how far the own host's node 0 says it is, and what is applied here."""
        if applied >= self._goal:
            self._goal, self._level_at = order_index, now
        self._level = now - self._level_at < self._election_s

    def better(
        self, member: int, leads: bool, members: Iterable[int], knows: Callable[[int], bool], now: float
    ) -> int:
        """The member whose feed to take instead of a live one; 0: keep it. ``leads``: this feed's node 0
        knows a sequencer; ``members``: the own one first; ``knows``: whether a member's does. One that knows
        none may be cut off, the disk of one that stands may hang. A node returns home once its own node 0,
        which keeps records for its siblings, knows a sequencer and is level. All only after a while."""
        others = [self._own] if leads and not self.stands else members
        good = [m for m in others if m != member and knows(m) and (m != self._own or self._level)]
        if not good:
            if leads:  # where this one stands and nobody has more, all wait for the same
                self._worse_since = now
            return 0
        return good[0] if now - self._worse_since >= self._patience_s else 0

    def failed(self, member: int, now: float) -> None:
        self._failed[member] = now

    def chosen(self, better: int, members: Iterable[int], now: float) -> int:
        """The member whose feed to take: the better one, or that with the oldest failure, own host first."""
        self._worse_since = self._moved_at = self._looked_at = now
        return better or min(members, key=lambda m: (self._failed.get(m, 0.0), m != self._own))

    def kept_no_more(self, member: int, now: float) -> None:
        """A node 0 does not keep what comes next: another host may, or a state must do."""
        if not self.starved:
            self._starved_since = now
        self.starved.add(member)

    def fed(self) -> None:
        self.starved.clear()

    def wants_state(self, members: int, now: float) -> bool:
        """Whether a state must do: none of the members keeps the records, or the search takes too long."""
        return bool(self.starved) and (
            len(self.starved) == members or now - self._starved_since >= self._hunger_s)
