"""What must hold of a Raft group at every moment, whatever happens to it. Each violation names its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft import Entry, Kind, LogContradiction, Message, Role

if TYPE_CHECKING:
    from tests.sim.raft.raft_group import SimNode


class Violation(AssertionError):
    """A rule is broken; ``rule`` is its name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class Checker:
    """Sees every step of every replica, and every disk, and remembers what was ever true."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}  # term -> who led it
        # (index, term) -> kind, data, term before
        self.entries: dict[tuple[int, int], tuple[int, bytes, int]] = {}
        self.committed: dict[int, tuple[int, int, bytes]] = {}  # index -> term, kind, data
        self.highest_commit = 0
        self.checked_commit: dict[int, int] = {}
        self.checked_term: dict[int, tuple[int, bool]] = {}
        self.counts = {"reads": 0, "commits": 0, "leaders": 0, "acks": 0, "votes": 0, "returns": 0}

    # -- after each step of a replica ------------------------------------------------------------------------

    def stepped(self, node: SimNode, nodes: dict[int, SimNode]) -> None:
        """``node`` did something."""
        raft = node.raft
        leading = raft.role == Role.LEADER
        if self.checked_term.get(node.id) != (raft.term, leading):
            self.keeps_its_promises(node, nodes)
            term, _ = self.checked_term.get(node.id, (0, False))
            if raft.term < term:
                raise Violation("I1 term never falls", f"{node.id} went from {term} to {raft.term}")
            self.checked_term[node.id] = (raft.term, leading)
            if leading:
                self._led(node)
        log = raft.log
        if (
            not log.position.index <= log.applied <= log.commit <= log.last_index
            or not log.persisted <= log.last_index
        ):
            raise Violation("I1 marks of a log", f"{node.id}: {raft.statistics()}")
        before = self.checked_commit.get(node.id, 0)
        if log.commit > before:
            self._committed(node, before, nodes)

    def restarted(self, node: SimNode) -> None:
        """``node`` came back with what its disk kept."""
        self.checked_commit[node.id] = 0
        self.checked_term.pop(node.id, None)

    def came_back(self, node: SimNode, had_applied: int) -> None:
        """``node`` has done what a start gives it to do, and has heard of nobody yet."""
        self.counts["returns"] += 1
        if node.up and node.raft.applied_index < had_applied:
            raise Violation(
                "I25 a restart takes nothing back",
                f"{node.id} had applied {had_applied}, and is at {node.raft.applied_index}",
            )

    def keeps_its_promises(self, node: SimNode, nodes: dict[int, SimNode]) -> None:
        """What others remember of ``node`` holds of it: they would refuse it."""
        raft = node.raft
        for other in nodes.values():
            promise = other.raft.promises().get(node.id)
            if promise is not None and not promise.is_kept(raft.term, raft.last_index):
                raise Violation(
                    "H10 promises are kept", f"{other.id} knows {promise} of {node.id}: {raft.statistics()}")

    def _led(self, node: SimNode) -> None:
        self.counts["leaders"] += 1
        raft = node.raft
        if self.leaders.setdefault(raft.term, node.id) != node.id:
            raise Violation("I1 one leader per term", f"{raft.term}: {self.leaders[raft.term]} and {node.id}")
        hard = node.disk.durable_hard
        if (hard.term, hard.vote) != (raft.term, node.id):
            raise Violation(
                "I2 a leader's own vote is synced", f"{node.id} leads {raft.term}, on disk {hard}"
            )
        for index, (term, _, _) in self.committed.items():
            if index > raft.log.position.index and raft.log.term(index) != term:
                raise Violation(
                    "I1 leader completeness", f"{node.id} leads {raft.term} without {index} of {term}"
                )

    def _committed(self, node: SimNode, before: int, nodes: dict[int, SimNode]) -> None:
        raft = node.raft
        commit = raft.commit_index
        first = max(before, raft.log.position.index) + 1
        for entry in raft.log_entries(first, commit) if first <= commit else []:
            found = self.committed.setdefault(entry.index, (entry.term, entry.kind, entry.data))
            if found != (entry.term, entry.kind, entry.data):
                raise Violation(
                    "I1 one committed entry per index", f"{node.id} has {entry}, committed is {found}"
                )
        if raft.role == Role.LEADER and commit > self.highest_commit:
            self.counts["commits"] += 1
            term = raft.log.term(commit)
            have = [v for v in raft.configuration.voters if nodes[v].disk.holds(commit, term)]
            if len(have) < raft.configuration.quorum():
                raise Violation("I2 committed is on a quorum's disks", f"{commit} of {term} only on {have}")
        self.highest_commit = max(self.highest_commit, commit)
        self.checked_commit[node.id] = commit

    # -- what a replica writes, sends and answers ------------------------------------------------------------

    def written(self, node: SimNode, entries: list[Entry]) -> None:
        """``node`` handed out entries for storage: log matching, by induction over (index, term)."""
        before = node.raft.log.term(entries[0].index - 1)
        for entry in entries:
            known = self.entries.setdefault((entry.index, entry.term), (entry.kind, entry.data, before))
            if known[:2] != (entry.kind, entry.data) or (known[2] != before and -1 not in (known[2], before)):
                raise Violation(
                    "I1 log matching", f"{node.id} has {entry} after {before}, elsewhere it is {known}"
                )
            before = entry.term

    def leaves(self, node: SimNode, message: Message) -> None:
        """``message`` leaves ``node`` now: is what it says on the disk?"""
        hard = node.disk.durable_hard
        kind = message.kind
        asks = kind == Kind.PRE_VOTE or (kind == Kind.PRE_VOTE_ACK and message.flag)
        if not asks and hard.term < message.term:
            raise Violation("I2 no term before its sync", f"{message}, on disk {hard}")
        if hard.term != message.term:
            return  # the disk is past that term; it was right when it was written
        if kind == Kind.VOTE_ACK and message.flag:
            self.counts["votes"] += 1
            if hard.vote != message.to:
                raise Violation("I2 no vote before its sync", f"{message}, on disk {hard}")
        elif kind == Kind.VOTE:
            if hard.vote != node.id:
                raise Violation("I2 no vote before its sync", f"{message}, on disk {hard}")
            # a request that a candidate has given up since (its log was replaced) can win nothing any more
            running = node.raft.role == Role.CANDIDATE and node.raft.term == message.term
            if running and message.index > 0 and not node.disk.holds(message.index, message.log_term):
                raise Violation("I2 no vote request before the log's sync", f"{message}")
        elif kind == Kind.APPEND_ACK:
            self.counts["acks"] += 1
            if message.index > 0 and not node.disk.holds(message.index, message.log_term):
                raise Violation(
                    "I2 no ack before its sync", f"{message}, disk ends at {node.disk.durable_last}"
                )

    def applied(self, node: SimNode, index: int) -> None:
        """``node`` applied up to ``index``: a flush of its state now must not be ahead of its log."""
        if not node.disk.holds(index, node.raft.log.term(index)):
            raise Violation("H10 state never ahead of the log", f"{node.id} applied {index}")

    def answered(self, node: SimNode, asked_at: int, index: int) -> None:
        """A read was confirmed at ``index``; when it was asked, ``asked_at`` was committed somewhere."""
        self.counts["reads"] += 1
        if index < asked_at:
            raise Violation(
                "I13 read index", f"{node.id} answered {index}, but {asked_at} was committed before"
            )

    def failed(self, node: SimNode, error: Exception) -> None:
        """A replica found a contradiction itself; no replica here ever loses what it synced."""
        rule = (
            "I1 or I2, noticed by a replica"
            if isinstance(error, LogContradiction)
            else "assertion in a replica"
        )
        raise Violation(rule, f"{node.id}: {error}") from error
