"""Rounds of read-index questions: one question to the sequencer for all linearizable reads that have come.

Hot path: a read is one list append here. Reads of one shard, of several (``proxy.spanning.gather``), and
read-only transactions share the rounds.

H2, I13: a question leaves after the reads that it stands for have come; reads that come while it is under way
belong to a later one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from cluster import errors
from cluster.faults import HANDLER_MISTAKES, faults
from cluster.wire.messages import READ, READ_INDEX_ANSWER, Method
from proxy.routing.links import Link, Near
from proxy.routing.overdue import sweep_queue
from proxy.routing.sending import Sending
from proxy.routing.waiting import ASK, OK, Waiting

_MOST_WAITING = 20_000  # reads
_ROUNDS = 4  # questions under way at once; more reads wait for one of them to come back
_SLOW_S = 0.5  # etcd's: it asks again then


class ReadIndexRounds:
    """The router calls :meth:`ask` before a tick's frames leave."""

    def __init__(self, router: Sending) -> None:
        self.waiting: list[Waiting] = []  # no question stands for them yet
        self.rounds = 0
        self.slow = 0  # questions that were answered late
        self.failed = 0
        self._router = router
        self._questions: list[Waiting] = []  # under way; context: the reads that wait for each

    def add(self, read: Waiting) -> None:
        """A READ_INDEX is answered by ``then`` with the round's own answer."""
        if len(self.waiting) >= _MOST_WAITING:
            self._router.fail(read, errors.TOO_MANY_REQUESTS)
            return
        self.waiting.append(read)
        self._router.schedule()

    def ask(self) -> None:
        """H2: one question, asked now, for the reads that have come by now."""
        if not self.waiting or len(self._questions) >= _ROUNDS:
            return
        router = self._router
        batch, self.waiting = self.waiting, []
        self.rounds += 1
        question = Waiting(
            None, Method.READ_INDEX, b"", 0, ASK, router.loop.time(), router.limit_s, router.quiet)
        question.then = self._indexed
        question.context = batch
        self._questions.append(question)
        router.to_leader(question)

    def _indexed(self, question: Waiting, status: int, body: bytes) -> None:
        router, ready = self._router, None
        if status == OK:
            order_index, _, _ = READ_INDEX_ANSWER.unpack(body)
            if any(read.key is not None and not read.shard for read in question.context):
                # before this round ends: a table that comes by it takes reads from the round (G7)
                ready = self._near(order_index)
        self._questions.remove(question)
        self.slow += router.loop.time() - question.started > _SLOW_S
        if self.waiting:
            router.schedule()
        if status != OK:
            self.failed += 1
            for read in question.context:
                router.finish_error(read, body)
            return
        prefix, told = READ.pack(order_index, 0), []
        for read in question.context:
            try:
                if ready is not None and read.key is not None and not read.shard:
                    router.get_near(*ready, read.call, read.key, read.stats)
                elif read.method == Method.READ_INDEX:
                    told.append(read)
                else:
                    read.prefix = prefix
                    router.to_replica(read)
            except HANDLER_MISTAKES as error:  # of this read alone: others came in the same batch
                faults.met("sending a read", error)
                router.fail(read, errors.INTERNAL_FAULT)
        for read in told:  # last: the node may apply more for it, and a table come
            read.tell(OK, body)

    def _near(self, order_index: int) -> tuple[Link, Near] | None:
        """Node 0, if it is in this process, and has this index once it has applied what is due."""
        link = self._router.routes[0].replica
        near = link.near if link is not None else None
        if link is None or near is None or near.order_index < order_index or near.guarded:
            return None
        return link, near

    def take(self, wanted: Callable[[Waiting], bool]) -> list[Waiting]:
        """Remove some reads: they are asked again."""
        taken: list[Waiting] = []
        for reads in (self.waiting, *(question.context for question in self._questions)):
            taken += filter(wanted, reads)
            reads[:] = [read for read in reads if not wanted(read)]
        return taken

    def unanswered(self) -> Iterator[Waiting]:
        """Oldest first."""
        for question in self._questions:
            yield from question.context
        yield from self.waiting

    def sweep(self, now: float) -> None:
        if self.waiting:
            reads, self.waiting = self.waiting, []
            self.waiting[:0] = sweep_queue(self._router, deque(reads), now)
        for question in self._questions:
            question.context = list(sweep_queue(self._router, deque(question.context), now))
