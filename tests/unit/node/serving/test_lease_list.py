"""LeaseLeases: made once for all who ask, in short steps; nobody misses a lease that was there when he
asked."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.lessor import Lessor
from cluster.pb import rpc_pb2 as pb
from cluster.wire import messages
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.serving.leases import listing as lease_list
from node.serving.leases.listing import LeaseList
from node.serving.reads import Reads
from node.serving.streams import LINK_BYTES, PIECE_BYTES, Streams
from node.slicing.slicer import Slicer
from tests.unit.proxy.fakes import ManualLoop


class Registry:
    """A replica with leases, and a front."""

    def __init__(self, leases: int) -> None:
        loop: Any = ManualLoop()
        self.loop = loop
        self.lessor = Lessor(1000)
        for lease in range(1, leases + 1):
            self.lessor.granted(lease * 7919 % 1_000_003, 60, 0)
        self.store: Any = SimpleNamespace(revision=7)
        slicer = Slicer(self.loop)
        self.reads = Reads(loop, slicer, lambda link: None, lambda: 0)
        self.streams = Streams(self.reads.start, self.loop.time, self.reads.refuse, 60.0)
        raft: Any = SimpleNamespace(term=1)
        self.list = LeaseList(
            self.lessor, self.store, raft, reads=self.reads, streams=self.streams, slicer=slicer,
            mark_dirty=lambda link: None)
        self.answers: list[tuple[int, int, bytes]] = []
        self.heads: dict[int, tuple[int, ...]] = {}  # revision and term of each answer
        self.link = FrontLink(b"front", self._frame, b"", 1)

    def _frame(self, parts: list[bytes]) -> bool:
        self.answers += messages.decode_answers(parts[-1])[1]
        return True

    def ask(self, rid: int) -> None:
        """As a front's question is served."""
        work = self.list.ask(self.link, rid)
        if work is not None:
            self.reads.start(self.link, rid, work)

    def said(self) -> dict[int, list[int]]:
        """The leases of each answer since the last call, to a front that takes all of it at once."""
        bodies: dict[int, bytes] = {}
        found: dict[int, list[int]] = {}
        read: dict[bytes, list[int]] = {}
        while True:
            self.loop.run()
            if self.link.pending:
                self.link.flush()
            if not self.answers:
                return found
            for rid, status, body in self.answers:
                assert status in (Status.PARTIAL, Status.OK)
                bodies[rid] = bodies.get(rid, b"") + body
                if status == Status.OK:
                    whole = bodies.pop(rid)
                    self.heads[rid], listed = HEAD.unpack_from(whole), whole[HEAD.size :]
                    if listed not in read:
                        read[listed] = [one.ID for one in pb.LeaseLeasesResponse.FromString(listed).leases]
                    found[rid] = read[listed]
            self.answers.clear()
            self.streams.credit(self.link, 0, self.link.pieces_sent)


def test_all_who_ask_share_an_answer_that_is_made_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """30,000 leases and 200 questions of 24 KB in all: 5.8 s for a client of another host."""
    registry = Registry(30_000)
    ranks: list[int] = []
    rank, steps = Lessor.rank, [0]

    def counted(self: Lessor, lease: int) -> tuple[int, int]:
        ranks.append(lease)
        return rank(self, lease)

    monkeypatch.setattr(Lessor, "rank", counted)
    for rid in range(1, 201):
        registry.ask(rid)
    assert not ranks
    for _ in registry.list._work():
        steps.append(len(ranks))
    assert max(after - before for before, after in pairwise(steps)) <= lease_list._STEP
    found = registry.said()
    assert set(found) == set(range(1, 201))
    wanted = sorted(registry.lessor.unordered(), key=lambda lease: rank(registry.lessor, lease))
    assert all(leases == wanted for leases in found.values())
    registry.ask(300)
    assert registry.said() == {300: wanted}
    assert (len(ranks), registry.list.made) == (30_000, 1)


def test_a_lease_that_was_granted_before_a_question_is_in_its_answer() -> None:
    registry = Registry(5000)
    registry.ask(1)
    work = registry.list._work()
    next(work)
    registry.lessor.granted(5, 60, 0)
    registry.lessor.revoked(7919)
    registry.ask(2)
    for _ in work:
        pass
    found = registry.said()
    assert (5 in found[1], 5 in found[2], 7919 in found[2]) == (False, True, False)
    assert found[2] == sorted(registry.lessor.unordered(), key=registry.lessor.rank)


def test_the_sequencers_answer_is_in_the_order_of_the_time_left() -> None:
    registry = Registry(0)
    registry.lessor.promote(0)
    for lease, ttl_s in ((1, 30), (-2, 10), (3, 20)):
        registry.lessor.granted(lease, ttl_s, 0)
    registry.ask(1)
    registry.loop.run()
    assert registry.said() == {1: [-2, 3, 1]}
    registry.lessor.renew(-2, 15_000 - 6_000)  # until 19 s: before the others still
    registry.lessor.renew(3, 15_000)  # until 35 s
    registry.ask(2)
    assert registry.said() == {2: [-2, 1, 3]}
    registry.ask(3)
    assert registry.said() == {3: [-2, 1, 3]}
    assert registry.list.made == 2


def test_a_header_is_not_older_than_the_leases_that_are_listed_under_it() -> None:
    registry = Registry(600)
    registry.ask(1)
    registry.store.revision = 8
    registry.lessor.granted(5, 60, 0)  # before the list is made, and so in it
    work = registry.list._work()
    next(work)
    registry.store.revision = 9  # another key: the leases are those that they were
    registry.ask(2)
    for _ in work:
        pass
    assert all(5 in leases for leases in registry.said().values())
    assert registry.heads == {1: (8, 1), 2: (9, 1)}


def test_long_answers_leave_as_far_as_their_front_takes_them() -> None:
    """200 of them were 84 MB, put on their front's link in one turn."""
    registry = Registry(60_000)
    for rid in range(1, 201):
        registry.ask(rid)
    registry.loop.run()
    assert LINK_BYTES <= registry.link.in_flight <= LINK_BYTES + 2 * PIECE_BYTES
    assert registry.streams.count > 50  # these wait
    found = registry.said()
    assert [len(leases) for leases in found.values()] == [60_000] * 200
    assert registry.link.in_flight == 0 == registry.streams.count
