"""LeaseLeases: one answer for all clients that ask until leases change, made in slices.

A long one leaves as a long range does (``node.serving.streams``), in pieces that all answers share: 200
answers of 60,000 leases are 84 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from cluster.evaluate.reading.sorting import SortedRows
from cluster.features.lessor import Lessor
from cluster.raft import Raft
from cluster.wire.messages import HEAD, Status
from cluster.wire.protobuf import varint
from node.links.fronts import FrontLink
from node.serving.reads import Reads
from node.serving.streams import Answer, Streams
from node.slicing.slicer import Slicer, Slices
from node.storage import StateStore

_STEP = 256  # leases
_PART = 4096  # leases in a piece of an answer, some 50 KB: what has one is answered at once
_TOLD = 64  # answers in a step
Head = tuple[int, int]  # revision and term of an answer's header


class LeaseList:
    """The answers of one replica's registry."""

    def __init__(
        self, lessor: Lessor, store: StateStore, raft: Raft, *, reads: Reads, streams: Streams,
        slicer: Slicer, mark_dirty: Callable[[FrontLink], None],
    ) -> None:
        self._lessor = lessor
        self._store = store
        self._raft = raft
        self._reads = reads
        self._streams = streams
        self._slicer = slicer
        self._mark_dirty = mark_dirty
        self._waiting: list[tuple[int, FrontLink, int, Head]] = []  # since which change of the registry, ...
        self._making = False
        self._parts: list[bytes] = []  # LeaseLeasesResponse after its header
        self._of = -1  # the change of the registry that it shows
        self._renewals = 0  # until then
        self._head: Head = 0, 0  # when that was
        self.made = 0

    def ask(self, link: FrontLink, rid: int) -> Slices | None:
        """Answer with every lease that there is now, or when the answer is made."""
        # renewals come all the time: for the order of thousands of leases no answer is made anew
        lessor, short = self._lessor, len(self._parts) <= 1
        if self._of == lessor.changes and not (short and self._renewals != lessor.renewals):
            return self._answer(link, rid, self._now())
        self._waiting.append((lessor.changes, link, rid, self._now()))
        if not self._making:
            self._making = True
            self._slicer.start(self._work())
        return None

    def _answer(self, link: FrontLink, rid: int, head: Head) -> Slices | None:
        parts = self._parts
        if len(parts) <= 1:
            link.pieces(rid, Status.OK, [HEAD.pack(*head), *parts])
            return None
        answer = self._streams.answer(link, rid, [HEAD.pack(*head)])
        return answer.run(_in_turn(answer, parts))

    def _now(self) -> Head:
        return self._store.revision, self._raft.term

    def _work(self) -> Slices:
        while self._waiting:
            yield from self._make()
            waiting, self._waiting = self._waiting, []
            for number, (since, link, rid, head) in enumerate(waiting, 1):
                if since > self._of:  # it has come since, and so has a lease
                    self._waiting.append((since, link, rid, head))
                elif link.alive:
                    work = self._answer(link, rid, max(head, self._head))
                    if work is not None:
                        self._reads.start(link, rid, work)
                    self._mark_dirty(link)
                if not number % _TOLD:
                    yield
        self._making = False

    def _make(self) -> Slices:
        lessor, of, head = self._lessor, self._lessor.changes, self._now()
        renewals = lessor.renewals
        self.made += 1
        leases = lessor.unordered()
        # a lease's number as a row's key: (rank, row) is all that sorting looks at
        ordered = SortedRows(lambda row: lessor.rank(int(row[0])), False, 0)
        for at in range(0, len(leases), _STEP):
            ordered.add([(b"%d" % lease, b"") for lease in leases[at : at + _STEP]])
            yield
        parts: list[bytes] = []
        made: list[bytes] = []
        rows = ordered.ordered()
        while some := list(islice(rows, _STEP)):
            for row in some:
                status = b"\x08" + varint(int(row[0]))
                parts += (b"\x12", varint(len(status)), status)
            if len(parts) >= 3 * _PART:
                made.append(b"".join(parts))
                parts = []
            yield
        self._parts = [*made, b"".join(parts)] if parts else made
        self._of, self._renewals, self._head = of, renewals, head


def _in_turn(answer: Answer, parts: list[bytes]) -> Slices:
    """An answer, once its link has room: very many begin at once."""
    yield
    yield from answer.last(parts)
