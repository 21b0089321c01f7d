"""What is noted down while a cluster is under load.

Every operation is one small transaction: what it *reads* (and says it found just before it took effect) and
what it *writes*. A put reads nothing (or its ``prev_kv``), a delete reads its ``prev_kv``, a compare-and-swap
that succeeded reads what it compared with, one that failed is a plain read. ``None`` is the absent key.
Values are unique, so that what is read tells who wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Pairs = tuple[tuple[bytes, bytes | None], ...]


class Outcome(Enum):
    """What a client knows of its operation."""

    OK = "ok"
    FAILED = "failed"  # certainly without effect
    AMBIGUOUS = "ambiguous"  # may take effect at any time after its invocation, or never


@dataclass(slots=True)
class Operation:
    """One operation of one client. Times are of one monotonic clock."""

    invoked_ns: int
    returned_ns: int
    outcome: Outcome
    # held just before it took effect; of an AMBIGUOUS one: it takes effect only where they hold
    reads: Pairs = ()
    writes: Pairs = ()
    revision: int = 0  # of the answer's header: its own where it writes, else that of the state it shows
    client: int = 0
    host: int = 0
    kind: str = ""

    def __str__(self) -> str:
        def pairs(of: Pairs) -> str:
            return (
                "{" + ", ".join(f"{k.decode()}: {v.decode() if v is not None else None}" for k, v in of) + "}"
            )

        return (f"client {self.client} at host {self.host}, {self.kind} {self.outcome.value}, "
                f"{self.invoked_ns / 1e6:.3f}..{self.returned_ns / 1e6:.3f} ms, "
                f"read {pairs(self.reads)} wrote {pairs(self.writes)} revision {self.revision}")


@dataclass(slots=True, frozen=True)
class Event:
    """One change of one key, as a watch tells it; ``value`` None: deleted."""

    revision: int
    key: bytes
    value: bytes | None
    create_revision: int = 0
    version: int = 0
