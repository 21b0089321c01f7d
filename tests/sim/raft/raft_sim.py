"""A Raft group in one process: virtual time, and a network, disks and clocks that misbehave from one seed
(``raft_group``).

Faults: messages lost, delayed, reordered, repeated, damaged; links cut, both ways or one way; replicas
crashed (writes not yet synced are lost, or a prefix of them survives; the note of what is committed is kept,
older, lost or ahead of the log), restarted, paused for long (zombies,
who then meet their old post in any order), with fast, slow and jumping clocks; slow disks; crashes in the
middle of a snapshot install. Meanwhile proposals, reads, configuration changes, transfers and compactions.

``Simulation(seed).run()`` raises :class:`raft_checks.Violation`, or returns what it did. After the faults
the network heals and the group must make progress.
"""

from __future__ import annotations

from cluster.raft import Configuration, RaftError, Role
from tests.sim.raft.raft_checks import Violation
from tests.sim.raft.raft_group import Group, SimNode

_FAULTS = (
    "crash", "crash", "restart", "restart", "restart", "pause", "cut", "one-way", "heal", "heal", "disk",
    "clock", "flush", "flush", "compact", "transfer", "configuration", "configuration", "configuration",
    "leader pause", "leader crash", "unreachable", "all crash", "state sent", "split",
)
_CHURN = (
    "leader alone", "leader alone", "leader alone", "leader alone", "split", "heal", "heal", "crash",
    "restart", "restart", "leader crash", "leader pause", "transfer", "configuration", "configuration",
    "disk", "flush", "compact", "state sent", "all crash",
)


class Simulation(Group):
    """One run. ``raft_class`` may lack a rule: the checker must then notice."""

    def nemesis(self) -> None:
        """One fault, or the end of some."""
        r = self.random
        self.at(r.randint(50, 500) if self.churn else r.randint(30, 400), self.nemesis)
        if self.calm:
            return
        node = r.choice(list(self.nodes.values()))
        action = r.choice(_CHURN if self.churn else _FAULTS)
        if action.startswith("leader"):
            leaders = [n for n in self.nodes.values() if n.up and not n.paused and n.raft.role == Role.LEADER]
            if not leaders:
                return
            node = r.choice(leaders)
        self._did(action)
        if action in ("crash", "leader crash") and node.up:
            self.crash(node)
        elif action == "all crash" and r.random() < 0.3:
            for each in self.nodes.values():
                if each.up:
                    self.crash(each)
        elif action == "restart":
            for each in self.nodes.values():
                if not each.up:
                    self.restart(each)
        elif action in ("pause", "leader pause") and node.up and not node.paused:
            self.pause(node, r.choice((100, 700, 2_500)))
        elif action == "cut":
            for each in self.nodes:
                if r.random() < 0.7:
                    self.blocked |= {(node.id, each), (each, node.id)}
        elif action == "one-way":
            for each in self.nodes:
                if r.random() < 0.7:
                    self.blocked.add((node.id, each) if r.random() < 0.5 else (each, node.id))
        elif action == "leader alone":
            # what it proposes reaches nobody, or one follower
            keep = r.choice(list(self.nodes))
            self.blocked = {(a, b) for a in self.nodes for b in self.nodes
                            if node.id in (a, b) and (keep not in (a, b) or r.random() < 0.5)}
        elif action == "split":
            side = {i for i in self.nodes if r.random() < 0.5}
            self.blocked = {(a, b) for a in self.nodes for b in self.nodes if (a in side) != (b in side)}
        elif action == "heal":
            self.blocked.clear()
        elif action == "state sent" and node.up and not node.paused and node.raft.applied_index:
            # a replica whose feed has a gap takes a state it needs, wherever its log is (H8)
            self._send_snapshot(node, r.choice(list(self.nodes)), 0)
        elif action == "disk":
            node.slow_disk = not node.slow_disk
        elif action == "clock":
            local = node.local(self.now)
            node.clock_base, node.clock_from = local + r.choice((0, 0, 200, 1_000)), self.now
            node.clock_rate = r.choice((1.0, 1.0, 0.5, 2.0))
        elif action in ("flush", "compact") and node.up and not node.paused:
            self.flush(node, compact=action == "compact" or r.random() < 0.5)
        elif action == "transfer":
            self.transfer()
        elif action == "configuration":
            self.reconfigure()
        elif action == "unreachable" and node.up and not node.paused:
            node.raft.report_unreachable(r.choice(list(self.nodes)))
            self._process(node)

    def flush(self, node: SimNode, compact: bool) -> None:
        """The state machine's disk catches up; then the log may lose what that covers (H9)."""
        raft = node.raft
        if raft.applied_index > node.state.index:
            node.state = raft.position_at(raft.applied_index)
        index = node.state.index - self.random.choice((0, 0, 3))
        if compact and index > node.disk.position.index:
            position = raft.position_at(index)
            node.disk.compact(position)
            raft.compacted(index)
            self._process(node)

    # -- what clients and operators do -----------------------------------------------------------------------

    def client(self) -> None:
        self.at(self.random.randint(1, 40), self.client)
        for node in self._leaders():
            what = self.random.random()
            if what < 0.6:
                self.propose(node)
            elif what < 0.9:
                self.ask(node)

    def propose(self, node: SimNode) -> None:
        for _ in range(self.random.choice((1, 1, 1, 3))):
            try:
                node.raft.propose(b"%d at %d by %d" % (self.now, node.raft.last_index, node.id))
                self._did("proposed")
            except RaftError:
                self._did("proposal refused")
        self._process(node)

    def transfer(self) -> None:
        for node in self._leaders():
            node.raft.transfer_leadership(self.random.choice(sorted(node.raft.configuration.voters)))
            self._process(node)

    def reconfigure(self) -> None:
        r = self.random
        for node in self._leaders():
            old = node.raft.configuration
            others = sorted(old.voters - {node.id})
            learners = sorted(old.learners)
            what = r.choice(("learner", "voter", "promote", "remove", "demote", "drop"))
            voters, new_learners = set(old.voters), set(old.learners)
            joins = 0
            if what in ("learner", "voter") and len(old.members()) < 6:
                joins = self.next_id
                (new_learners if what == "learner" else voters).add(joins)
            elif what == "promote" and learners:
                chosen = r.choice(learners)
                new_learners.discard(chosen)
                voters.add(chosen)
            elif what in ("remove", "demote") and others:
                chosen = r.choice(others)
                voters.discard(chosen)
                if what == "demote":
                    new_learners.add(chosen)
            elif what == "drop" and learners:
                new_learners.discard(r.choice(learners))
            else:
                continue
            if joins:
                self.next_id += 1
                self._add(joins, Configuration(frozenset()))
            try:
                node.raft.propose_configuration(Configuration(frozenset(voters), frozenset(new_learners)))
                self._did(f"configuration: {what}")
            except RaftError:
                self._did("configuration refused")
            self._process(node)

    # -- a whole run -----------------------------------------------------------------------------------------

    def run(self) -> dict[str, int]:
        """The faults, then peace and proof of progress."""
        self.at(1, self.client)
        self.at(500, self.nemesis)
        self._until(self.duration_ms)
        self.calm = True
        self.blocked.clear()
        for node in self.nodes.values():
            node.slow_disk = False
            node.clock_base, node.clock_from, node.clock_rate = node.local(self.now), self.now, 1.0
            if not node.up:
                self.restart(node)
            elif node.paused:
                self.resume(node)
        target = self.checker.highest_commit + 3

        def settled() -> bool:
            return any(
                n.raft.role == Role.LEADER
                and all(self.nodes[m].raft.commit_index >= target for m in n.raft.configuration.members())
                for n in self.nodes.values()
            )

        if not self._until(self.now + 20_000, settled):
            status = {i: (n.up, n.raft.role.name, n.raft.statistics()) for i, n in self.nodes.items()}
            raise Violation("liveness", f"no progress to {target} after all faults ended: {status}")
        return {**self.done, **self.checker.counts, "events": self.event_count}
