"""The lessor: which leases exist and when each is due. Time is the caller's, in milliseconds.

The registry is replicated: :meth:`Lessor.granted`, :meth:`Lessor.revoked` and :meth:`Lessor.checkpointed` are
called when such an item is *applied*, on every replica, in order. Deadlines are the sequencer's memory only,
between :meth:`Lessor.promote` and :meth:`Lessor.demote`.

Rules (H7, I15):

* A new sequencer gives every lease its full time, or what an uncleared checkpoint says is left, plus an
  election timeout: its predecessor may have promised that much.
* A keep-alive is answered only after a confirmation of leadership begun after it arrived (the caller's),
  and one of a checkpointed lease only once the clearing of the checkpoint is applied
  (:meth:`Lessor.needs_checkpoint_clear`): the next sequencer would count by the checkpoint otherwise.
* The sequencer may log a checkpoint of a lease only behind all that it has logged of that lease and that is
  applied: so an applied checkpoint is of the very lease that it was logged for (:meth:`Lessor.logged`).
* An expiry is decided and appended in one and the same term: what :meth:`Lessor.due` returns is for this
  term's log only. A lease that was given out as due takes no keep-alive any more.
* A lease never ends before its time; it may live a scan interval and a commit longer, and one interval more
  for every ``_LOOKS`` leases that are looked at before it.

Costs, 100,000 leases: promote 56 ms, renew 0.2 us, due with nothing due 0.1 us, each expiry 1.2 us.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

from cluster import errors
from cluster.errors import EtcdError
from cluster.histogram import LEASE_TTL_S, Histogram

MAX_TTL_S = 9_000_000_000
EXPIRY_SCAN_LIMIT = 500
EXPIRY_RETRY_MS = 3_000
CHECKPOINT_INTERVAL_MS = 300_000
NEVER = 1 << 62
# entries that one call looks at, also those of renewed leases: 20 ms. One TTL after a change of leaders all
# leases have the same time, and a million in one turn took an election timeout
_LOOKS = 20_000
_STALE = 1024  # entries of revoked leases, kept beside as many as there are leases
_STEP = 64  # entries looked at with a revoke, while stale ones are dropped


def min_ttl_s(election_timeout_ms: int, heartbeat_ms: int) -> int:
    """The shortest TTL that is granted: one and a half election timeouts in whole heartbeats, as in etcd,
    and then in whole seconds."""
    return -(-(3 * (election_timeout_ms // heartbeat_ms) // 2 * heartbeat_ms) // 1000)


def effective_ttl_s(ttl_s: int, minimum_s: int) -> int:
    """The TTL that a request for ``ttl_s`` gets. EtcdError: it asks for too much."""
    if ttl_s > MAX_TTL_S:
        raise EtcdError(errors.LEASE_TTL_TOO_LARGE)
    return max(ttl_s, minimum_s)


def choose_id(exists: Callable[[int], bool], generate: Callable[[], int]) -> int:
    """An unused lease ID: a positive int64 out of what ``generate`` gives (any 64 bits)."""
    while True:
        lease = generate() & 0x7FFF_FFFF_FFFF_FFFF
        if lease and not exists(lease):
            return lease


class Lease:
    """``deadline_ms`` counts only on the sequencer; ``remaining_s`` 0 = no checkpoint."""

    __slots__ = ("checkpoint_ms", "deadline_ms", "expired", "id", "remaining_s", "said_s", "ttl_s",
                 "unapplied")

    def __init__(self, lease: int, ttl_s: int, remaining_s: int = 0) -> None:
        self.id = lease
        self.ttl_s = ttl_s
        self.remaining_s = remaining_s
        self.deadline_ms = NEVER
        self.checkpoint_ms = NEVER  # when its time left is to be logged next
        self.expired = False  # given out as due in this term
        self.unapplied = 0  # checkpoints that this term has logged and not applied
        self.said_s = 0  # what the last of them says

    @property
    def left_s(self) -> int:
        """What a new sequencer gives it."""
        return min(self.remaining_s, self.ttl_s) if self.remaining_s else self.ttl_s


_Entry = tuple[int, int, Lease]
_Add = Callable[[_Entry], None]


class _Times:
    """A heap of ``(time, order, lease)``, one entry a lease. It may be earlier than the lease's own time, and
    is put back when met, so that a renewal costs no heap operation. An entry of a revoked lease is dropped
    when met, or with many: it holds the object, so it is not taken for a later lease of the same ID."""

    __slots__ = ("_heap", "_old")

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._old: list[_Entry] = []  # a heap too, while its entries are looked at from its end on

    def __len__(self) -> int:
        return len(self._heap) + len(self._old)

    def first(self) -> list[_Entry]:
        """The heap whose top comes first; empty if there are no entries."""
        heap, old = self._heap, self._old
        return old if old and (not heap or old[0] < heap[0]) else heap

    def due(self, now_ms: int) -> Iterator[list[_Entry]]:
        """The heap with the first entry, again and again while that is due: the caller drops the entry, or
        puts it back behind all that are due. So the next calls come to these."""
        for _ in range(_LOOKS):
            heap = self.first()
            if not heap or heap[0][0] > now_ms:
                return
            yield heap

    def add(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, entry)

    def set(self, entries: list[_Entry]) -> None:
        heapq.heapify(entries)
        self._heap, self._old = entries, []

    def drop_stale(self, leases: dict[int, Lease]) -> None:
        """A step, if there are many."""
        if not self._old:
            if len(self._heap) <= 2 * len(leases) + _STALE:  # clients revoke leases of years
                return
            self._heap, self._old = [], self._heap
        old = self._old
        for _ in range(min(_STEP, len(old))):
            entry = old.pop()
            if leases.get(entry[2].id) is entry[2]:
                heapq.heappush(self._heap, entry)


class Lessor:
    """All leases of the cluster, and on the sequencer their deadlines."""

    def __init__(
        self, election_timeout_ms: int, heartbeat_ms: int = 100,
        checkpoint_interval_ms: int = CHECKPOINT_INTERVAL_MS,
    ) -> None:
        """``checkpoint_interval_ms`` 0: this replica logs none as the sequencer; it still counts by logged
        ones."""
        self.min_ttl_s = min_ttl_s(election_timeout_ms, heartbeat_ms)
        self.primary = False
        self._election_timeout_ms = election_timeout_ms
        self._checkpoint_interval_ms = checkpoint_interval_ms
        self._leases: dict[int, Lease] = {}
        self._deadlines = _Times()
        self._checkpoints = _Times()
        self._order = 0
        self.changes = 0  # of which leases there are
        self.renewals = 0  # which change their order
        self.revokes = 0  # since the process began
        self.expiries = 0  # of these, of leases that were due here
        self.ttls = Histogram(LEASE_TTL_S)  # of those granted since then

    # --- the replicated registry ---------------------------------------------------------------

    def load(self, leases: Iterable[tuple[int, int, int]]) -> None:
        """Take over the registry from storage: ``(id, ttl_s, remaining_s)``; after a start or an install.
        Times are brought into their bounds: a restored file may say anything."""
        assert not self.primary, "a sequencer's registry changes by its log only"
        self.changes += 1
        self._leases = {
            lease: Lease(lease, min(max(ttl_s, self.min_ttl_s), MAX_TTL_S), max(remaining_s, 0))
            for lease, ttl_s, remaining_s in leases
        }

    def granted(self, lease: int, ttl_s: int, now_ms: int) -> None:
        """A grant was applied: on the sequencer its time begins now."""
        entry = self._leases[lease] = Lease(lease, ttl_s)
        self.changes += 1
        self.ttls.observe(ttl_s)
        if self.primary:
            self._start(entry, now_ms, ttl_s * 1000, self._deadlines.add, self._checkpoints.add)

    def revoked(self, lease: int) -> None:
        """A revoke or an expiry was applied. Unknown leases are ignored: replay is idempotent."""
        entry = self._leases.pop(lease, None)
        self.changes += 1
        if entry is not None:
            self.revokes += 1
            self.expiries += entry.expired
        self._deadlines.drop_stale(self._leases)
        self._checkpoints.drop_stale(self._leases)

    def checkpointed(self, lease: int, remaining_s: int) -> None:
        """A checkpoint was applied; 0 clears it."""
        entry = self._leases.get(lease)
        if entry is not None:
            entry.remaining_s = max(remaining_s, 0)
            entry.unapplied = max(entry.unapplied - 1, 0)

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """``(id, ttl_s, remaining_s)`` in order of IDs: what a snapshot stores."""
        for lease in sorted(self._leases):
            entry = self._leases[lease]
            yield lease, entry.ttl_s, entry.remaining_s

    def rank(self, lease: int) -> tuple[int, int]:
        """Its place in LeaseLeases: by the time left on the sequencer, by ID elsewhere; unknown leases
        last."""
        entry = self._leases.get(lease)
        return (entry.deadline_ms if entry is not None and self.primary else NEVER), lease

    def unordered(self) -> list[int]:
        """All leases, quickly: 10 us a thousand."""
        return list(self._leases)

    # --- the sequencer's deadlines ---------------------------------------------------------------

    def promote(self, now_ms: int, election_timeout_ms: int | None = None) -> None:
        """This replica has become the sequencer and has applied its own first record at ``now_ms``. H7."""
        extra = self._election_timeout_ms if election_timeout_ms is None else election_timeout_ms
        self.primary = True
        self.changes += 1  # of their order
        deadlines: list[_Entry] = []
        checkpoints: list[_Entry] = []
        for entry in self._leases.values():
            entry.expired = False
            entry.unapplied = 0
            # H7: the predecessor may have acked a keep-alive the moment before it lost its term
            self._start(entry, now_ms, entry.left_s * 1000 + extra, deadlines.append, checkpoints.append)
        self._deadlines.set(deadlines)
        self._checkpoints.set(checkpoints)

    def demote(self) -> None:
        """The term is lost: deadlines die with it."""
        self.primary = False
        self.changes += 1
        self._deadlines.set([])
        self._checkpoints.set([])
        for entry in self._leases.values():
            entry.deadline_ms = entry.checkpoint_ms = NEVER
            entry.expired = False
            entry.unapplied = 0

    def _start(self, entry: Lease, now_ms: int, left_ms: int, due: _Add, checkpoint: _Add) -> None:
        self._order += 1
        entry.deadline_ms = now_ms + left_ms
        due((entry.deadline_ms, self._order, entry))
        entry.checkpoint_ms = NEVER
        if 0 < self._checkpoint_interval_ms < left_ms:
            entry.checkpoint_ms = now_ms + self._checkpoint_interval_ms
            checkpoint((entry.checkpoint_ms, self._order, entry))

    def renew(self, lease: int, now_ms: int) -> int | None:
        """A keep-alive: the granted TTL in seconds, 0 if there is no such lease. None: the answer waits for
        the log, since the lease is due, or a checkpoint of it has to be cleared
        (:meth:`needs_checkpoint_clear`). Call at the time the answer is given."""
        assert self.primary, "I15: only the sequencer renews"  # I15
        entry = self._leases.get(lease)
        if entry is None:
            return 0
        if entry.expired or entry.deadline_ms <= now_ms or entry.remaining_s or entry.unapplied:  # H7
            return None
        entry.deadline_ms = now_ms + entry.ttl_s * 1000
        self.renewals += 1
        if entry.checkpoint_ms != NEVER:
            entry.checkpoint_ms = now_ms + self._checkpoint_interval_ms
        elif 0 < self._checkpoint_interval_ms < entry.ttl_s * 1000:
            entry.checkpoint_ms = now_ms + self._checkpoint_interval_ms
            self._order += 1
            self._checkpoints.add((entry.checkpoint_ms, self._order, entry))
        return entry.ttl_s

    def needs_checkpoint_clear(self, lease: int) -> bool:
        """Whether a keep-alive must log ``lease_checkpoint(lease, 0)`` before :meth:`renew`, which is not
        under way yet. H7."""
        entry = self._leases.get(lease)
        return (entry is not None and not entry.expired
                and (entry.said_s if entry.unapplied else entry.remaining_s) > 0)

    def logged(self, lease: int, remaining_s: int) -> None:
        """This term has logged a checkpoint of it; nothing else of the lease is logged and not applied."""
        if (entry := self._leases.get(lease)) is not None:
            entry.unapplied += 1
            entry.said_s = remaining_s

    def due(self, now_ms: int, limit: int = EXPIRY_SCAN_LIMIT) -> list[int]:
        """Leases whose time is over, to be revoked by this term's log, in order of their deadlines. Each is
        given out again after ``EXPIRY_RETRY_MS`` until its revoke is applied."""
        assert self.primary, "I15: only the sequencer expires"  # I15
        found: list[int] = []
        leases = self._leases
        for heap in self._deadlines.due(now_ms):
            if len(found) >= limit:
                break
            _, order, entry = heap[0]
            if leases.get(entry.id) is not entry:
                heapq.heappop(heap)
            elif entry.deadline_ms > now_ms and not entry.expired:
                heapq.heapreplace(heap, (entry.deadline_ms, order, entry))
            else:
                entry.expired = True
                found.append(entry.id)
                heapq.heapreplace(heap, (now_ms + EXPIRY_RETRY_MS, order, entry))
        return found

    def is_expired(self, lease: int) -> bool:
        """Whether it is one that :meth:`due` has given out, and not a later one of the same ID."""
        return (entry := self._leases.get(lease)) is not None and entry.expired

    def due_checkpoints(self, now_ms: int, limit: int = EXPIRY_SCAN_LIMIT) -> list[tuple[int, int]]:
        """``(lease, remaining_s)`` to be logged as checkpoints now: of leases with long to live. With less
        than an interval left it is a lease's last."""
        assert self.primary, "H7: only the sequencer knows the time left"  # H7
        found: list[tuple[int, int]] = []
        leases, interval_ms = self._leases, self._checkpoint_interval_ms
        for heap in self._checkpoints.due(now_ms):
            if len(found) >= limit:
                break
            _, order, entry = heap[0]
            if leases.get(entry.id) is not entry:
                heapq.heappop(heap)
            elif entry.expired or entry.deadline_ms <= now_ms:
                heapq.heappop(heap)
                entry.checkpoint_ms = NEVER
            elif entry.checkpoint_ms > now_ms:
                heapq.heapreplace(heap, (entry.checkpoint_ms, order, entry))
            else:
                # rounded up: a lease never ends before its time
                left_s = -(-(entry.deadline_ms - now_ms) // 1000)
                if told := left_s < entry.left_s and not entry.unapplied:
                    found.append((entry.id, left_s))
                if told and entry.deadline_ms - now_ms <= interval_ms:
                    heapq.heappop(heap)
                    entry.checkpoint_ms = NEVER
                else:
                    entry.checkpoint_ms = now_ms + interval_ms
                    heapq.heapreplace(heap, (entry.checkpoint_ms, order, entry))
        return found

    def next_deadline(self) -> int:
        """:meth:`due` and :meth:`due_checkpoints` find nothing before this time; NEVER if nothing waits."""
        due, checkpoints = self._deadlines.first(), self._checkpoints.first()
        first = due[0][0] if due else NEVER
        return min(first, checkpoints[0][0]) if checkpoints else first

    def time_to_live(self, lease: int, now_ms: int) -> tuple[int, int] | None:
        """``(seconds left, rounded down; granted TTL)``; None if there is no such lease. As with etcd's finer
        clock, less than all is left from the start."""
        assert self.primary, "H7: only the sequencer knows"  # H7
        entry = self._leases.get(lease)
        if entry is None:
            return None
        return max(entry.deadline_ms - now_ms - 1, 0) // 1000, entry.ttl_s
