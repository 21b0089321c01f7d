"""What must hold at every moment of a simulated cluster, and what was ever committed."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any

from order_store import Content
from order_world import Violation

from cluster.raft import IntegrityError, Role

if TYPE_CHECKING:
    from order_host import NodeProcess
    from order_sim import Simulation


class Checker:
    """Sees every step of every node, and remembers what was ever true."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.committed: dict[int, dict[int, tuple[int, int, bytes]]] = {}  # shard -> index -> term, kind, data
        self.committed_at: dict[int, float] = {}  # order index -> when the first replica knew
        self.leaders: dict[tuple[int, int], int] = {}  # shard, term -> host
        self.states: dict[tuple[int, int], tuple[object, ...]] = {}  # shard, order index -> digest
        self.folds: dict[int, tuple[bytes, str]] = {}  # order index -> fold, of whom
        self.revisions: dict[int, int] = {0: 1}  # order index -> revision there
        self._seen: dict[tuple[int, int], int] = {}
        self._led: dict[tuple[int, int], tuple[int, bool]] = {}
        self.counts = {"commits": 0, "leaders": 0, "applied": 0, "elections": 0}

    def started(self, process: NodeProcess) -> None:
        """It came back with what its disks kept."""
        self._seen.pop((process.host, process.shard), None)
        self._led.pop((process.host, process.shard), None)

    # -- after each step of a node

    def stepped(self, process: NodeProcess) -> None:
        where = process.host, process.shard
        raft = process.node.raft
        commit = raft.commit_index
        if commit > self._seen.get(where, 0):
            self._committed(process, commit)
        leading = raft.role is Role.LEADER
        if self._led.get(where) != (raft.term, leading):
            self._led[where] = raft.term, leading
            if leading:
                self.counts["leaders"] += 1
                if self.leaders.setdefault((process.shard, raft.term), process.host) != process.host:
                    raise Violation("I1 one leader per term", f"shard {process.shard} term {raft.term}")

    def _committed(self, process: NodeProcess, commit: int) -> None:
        where, shard = (process.host, process.shard), process.shard
        raft = process.node.raft
        known = self.committed.setdefault(shard, {})
        first = max(self._seen.get(where, 0), raft.log.position.index) + 1
        if first <= commit:
            for entry in raft.log_entries(first, commit):
                mine = entry.term, int(entry.kind), entry.data
                found = known.setdefault(entry.index, mine)
                if found != mine:
                    raise Violation("I1 one committed entry per index", f"{process.name} has {mine} at {entry.index}, "
                                                                        f"committed is {found}")
                if shard == 0 and entry.index not in self.committed_at:
                    self.committed_at[entry.index] = self._simulation.now
                    self.counts["commits"] += 1
        self._seen[where] = commit

    def applied(self, where: tuple[int, int], content: Content) -> None:
        """A replica applied up to an order index (I6, I19)."""
        self.counts["applied"] += 1
        _, shard = where
        position = content.position
        digest = content.digest()
        known = self.states.setdefault((shard, position.order_index), digest)
        if known != digest:
            raise Violation("I19 replicas are equal at equal order index",
                            f"shard {shard} at {position.order_index}: {where} has {digest}, others {known}")
        if self.revisions.setdefault(position.order_index, position.revision) != position.revision:
            raise Violation("I5 a fold of the order log alone", f"{where} has revision {position.revision} at "
                            f"{position.order_index}, others {self.revisions[position.order_index]}")
        fold = content.metas.get("fold")
        if fold is not None:
            other, who = self.folds.setdefault(position.order_index, (fold, str(where)))
            if other != fold:
                raise Violation("I19 all nodes have the same fold", f"{where} and {who} at {position.order_index}")

    # -- at the end

    def failed(self, where: str, error: BaseException) -> None:
        """A process found a contradiction itself, or fell over."""
        text = str(error)
        found = re.match(r"([IH]\d+)", text)
        rule = found[1] if found else "I1 or I2" if isinstance(error, IntegrityError) else "a process fell over"
        trace: Any = traceback.extract_tb(error.__traceback__)
        last = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(trace[-4:]))
        raise Violation(f"{rule}, noticed by a process", f"{where}: {type(error).__name__}: {text} ({last})") from error
