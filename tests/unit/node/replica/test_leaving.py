"""A node's orderly end: what is waited for, in which order, and for how long at most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from cluster.members.table import Table
from cluster.raft import Configuration, Role
from cluster.settings import Common, Peer
from cluster.wire.frames import LOWEST
from cluster.wire.messages import (
    HELLO_BODY,
    SEQUENCE,
    Method,
    Status,
    decode_answers,
    frame,
    request,
)
from node.links.fronts import NODE_IDENTITY, Fronts
from node.replica.leaving import FRAME, Leaving
from node.replica.roles.role import Owed
from node.upkeep.group.succession import Succession

ELECTION_MS = 200
FRONT, NODE = b"front", NODE_IDENTITY + b"another shard's"


@dataclass
class FakeRaft:
    """A leader whom a follower relieves when told to, unless that is ``stuck``."""

    role: Role = Role.LEADER
    term: int = 5
    transferring: bool = False
    stuck: bool = False
    targets: list[int] = field(default_factory=list)
    heard: dict[int, int] = field(default_factory=lambda: {2: 0, 3: 0})  # ms ago
    configuration: Configuration = field(default_factory=lambda: Configuration(frozenset({1, 2, 3})))

    def transfer_leadership(self, target: int) -> None:
        self.transferring = target != 1  # to itself: given up
        if self.transferring:
            self.targets.append(target)

    def peers(self) -> dict[int, Any]:
        return {
            m: SimpleNamespace(heard_ms=10_000 - ago, learner=False, match=m) for m, ago in self.heard.items()
        }


class Uncounted:
    """Writes that wait for counts, and when they were refused."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self.waits = 0
        self.refused: list[tuple[int, bool, bool]] = []

    def __len__(self) -> int:
        return self.waits

    def refuse(self) -> None:
        told = any(link.pending for link in self._node.fronts.links.values())
        self.refused.append((self.waits, self._node.left, told))
        self.waits = 0


class FakeNode:
    """Its links are real; time is the loop's."""

    def __init__(self, election_ms: int) -> None:
        self.loop = asyncio.get_running_loop()
        peers = tuple(Peer(m, f"h{m}", "127.0.0.1", 1) for m in (1, 2, 3))
        common = Common(
            7, 1, "h", 3, 2, peers, "/nowhere", election_timeout_ms=election_ms, heartbeat_interval_ms=20
        )
        self.settings = SimpleNamespace(common=common, shard=1)
        self.roster = SimpleNamespace(table=Table(peers))
        self.raft = FakeRaft()
        self.fatal: asyncio.Future[str] = self.loop.create_future()
        self.stopping = self.left = False
        self.role = SimpleNamespace(owed=Owed.NOTHING)
        self.uncounted = Uncounted(self)
        self.said: list[tuple[int, bytes]] = []
        self.peers = SimpleNamespace(send=lambda member, kind, data: self.said.append((member, kind)))
        self.ended: list[tuple[str, bool]] = []  # long work that is not waited for any more, once fronts know
        self.upkeep = SimpleNamespace(
            compaction=SimpleNamespace(leave=lambda: self.end("compaction")),
            succession=Succession(
                self, self.raft, election_ms=election_ms, now_ms=self.now_ms))  # type: ignore[arg-type]
        self.defragments = SimpleNamespace(leave=lambda: self.end("defragmentation"))
        self.fronts = Fronts(7, self._received, lambda link: None, lambda link: None, (3, 2))
        self.heard: dict[bytes, list[int]] = {}  # identity -> statuses
        for identity in (FRONT, NODE):
            hello = HELLO_BODY.pack(LOWEST, 7, 2, 1, 3, 2)
            self.fronts.frame(identity, frame(1, [request(0, Method.HELLO, 0, hello)]), self._sent, b"")

    def _sent(self, parts: list[bytes]) -> bool:
        self.heard.setdefault(parts[0], []).extend(status for _, status, _ in decode_answers(parts[1])[1])
        return True

    def _received(self, link: Any, requests: list[Any]) -> None:
        assert [r[1] for r in requests] == [Method.FAREWELL]
        link.farewell = True

    def end(self, work: str) -> None:
        self.ended.append((work, any(link.pending for link in self.fronts.links.values())))

    def farewell(self) -> None:
        self.fronts.frame(FRONT, SEQUENCE.pack(2) + request(0, Method.FAREWELL, 0, b""), self._sent, b"")

    def now_ms(self) -> int:
        return 10_000

    def wake(self) -> None:
        self.fronts.flush()


def leave(
    steps: Callable[[FakeNode, asyncio.Task[None]], Any],
    before: Callable[[FakeNode], None] = lambda node: None,
    election_ms: int = ELECTION_MS,
) -> float:
    """Leave while ``steps`` happen; how long that took. It takes 60 s at most: with an election timeout that
    is longer, no wait was ended by its bound."""

    async def scenario() -> float:
        node = FakeNode(election_ms)
        before(node)
        began = node.loop.time()
        task = node.loop.create_task(Leaving(node).run())  # type: ignore[arg-type]
        await steps(node, task)
        await asyncio.wait_for(task, 60)
        assert node.left
        return node.loop.time() - began

    return asyncio.run(scenario())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_it_hands_over_then_answers_then_tells_its_fronts_and_waits_for_their_farewell() -> None:
    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        node.role.owed = Owed.FATE
        await until(lambda: node.raft.targets == [3])  # the one that is furthest along
        assert node.stopping
        node.raft.role, node.raft.transferring = Role.FOLLOWER, False
        await asyncio.sleep(0.05)
        assert FRONT not in node.heard, "it still owes an answer"
        node.role.owed = Owed.NOTHING
        await until(lambda: FRONT in node.heard)
        assert node.heard == {FRONT: [Status.LEAVING]}, "other shards' nodes ask elsewhere freely"
        await asyncio.sleep(0.05)
        assert not task.done(), "something may be on its way from the front"
        node.farewell()

    leave(steps, election_ms=60_000)


def test_who_waits_for_long_work_here_is_answered_once_fronts_were_told() -> None:
    """A front that waited for a compaction said no farewell: each stop took an election timeout more."""
    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        node.raft.role = Role.FOLLOWER
        await until(lambda: node.ended == [("compaction", True), ("defragmentation", True)])
        node.farewell()

    leave(steps, election_ms=60_000)


def test_nobody_is_handed_to_who_was_removed_and_is_served_yet() -> None:
    def removed(node: FakeNode) -> None:
        node.raft.configuration = Configuration(frozenset({1, 2}))

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: bool(node.raft.targets))
        assert node.raft.targets == [2]  # though 3 is further along
        node.raft.role, node.raft.transferring = Role.FOLLOWER, False
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(steps, removed)


def test_leadership_that_comes_back_is_handed_over_again() -> None:
    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: len(node.raft.targets) == 1)
        node.raft.transferring = False  # given up after an election timeout
        await until(lambda: len(node.raft.targets) == 2)
        node.raft.role = Role.FOLLOWER
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(steps)


def test_what_only_a_leader_is_told_is_waited_for_before() -> None:
    def owing(node: FakeNode) -> None:
        node.role.owed = Owed.LEADING

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(0.05)
        assert not node.raft.targets
        node.role.owed = Owed.NOTHING
        await until(lambda: bool(node.raft.targets))
        node.raft.role = Role.FOLLOWER
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(steps, owing)


def test_every_wait_has_its_bound() -> None:
    """I23: nobody takes over, what is owed is never decided, no front says farewell."""

    def stuck(node: FakeNode) -> None:
        node.role.owed = Owed.LEADING

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task], timeout=60)

    took = leave(steps, stuck)
    assert 3.5 * ELECTION_MS / 1000 < took < 3 + 4 * ELECTION_MS / 1000


def alone(node: FakeNode) -> None:
    node.raft.heard.clear()


def test_writes_that_wait_for_counts_are_served_where_nobody_takes_over() -> None:
    """They were dropped as the node closed: their fronts said that nobody knows their outcome."""

    def waiting(node: FakeNode) -> None:
        alone(node)
        node.uncounted.waits = 1

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(0.05)
        assert FRONT not in node.heard
        node.uncounted.waits, node.role.owed = 0, Owed.FATE
        await asyncio.sleep(0.05)
        assert FRONT not in node.heard, "it is logged by now"
        node.role.owed = Owed.NOTHING
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(steps, waiting, election_ms=60_000)


def test_writes_that_wait_for_counts_hold_up_no_hand_over() -> None:
    def waiting(node: FakeNode) -> None:
        node.uncounted.waits = 1

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: node.raft.targets == [3])
        node.raft.role, node.uncounted.waits = Role.FOLLOWER, 0  # who leads no longer refuses them
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(steps, waiting, election_ms=60_000)


def test_writes_that_are_not_counted_in_time_are_refused_once_fronts_ask_elsewhere() -> None:
    def waiting(node: FakeNode) -> None:
        alone(node)
        node.uncounted.waits = 2

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: FRONT in node.heard)
        assert node.uncounted.refused == [(2, True, True)]
        node.farewell()

    with capture_logs() as lines:
        took = leave(steps, waiting)
    assert 1.9 * ELECTION_MS / 1000 < took < 2 + 2 * ELECTION_MS / 1000
    assert lines == [], "their outcome is known"


def test_nobody_is_handed_to_who_is_about_to_end_itself() -> None:
    def all_leave(node: FakeNode) -> None:
        node.upkeep.succession.leaving = {2: 10_000, 3: 9_999}

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: FRONT in node.heard)
        assert node.raft.targets == []
        assert {(2, FRAME), (3, FRAME)} <= set(node.said), "its peers do not choose it, either"
        node.farewell()

    assert leave(steps, all_leave) < ELECTION_MS / 1000 + 3

    def one_leaves(node: FakeNode) -> None:
        # 2 said so before it was started anew
        node.upkeep.succession.leaving = {3: 10_000, 2: 10_000 - ELECTION_MS}

    async def handed(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: node.raft.targets == [2])
        node.raft.role = Role.FOLLOWER
        await until(lambda: FRONT in node.heard)
        node.farewell()

    leave(handed, one_leaves)


def test_a_hand_over_to_one_that_ends_as_well_is_given_up_at_once() -> None:
    """All hosts are stopped at once: the one that was chosen has closed before it heard of it."""

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await until(lambda: node.raft.targets == [3])
        node.upkeep.succession.leaving[3] = 10_000
        await until(lambda: node.raft.targets == [3, 2])
        node.upkeep.succession.leaving[2] = 10_000
        await until(lambda: FRONT in node.heard)
        assert not node.raft.transferring
        node.farewell()

    leave(steps)


def test_one_that_can_go_at_once_tells_its_peers_all_the_same() -> None:
    def follows(node: FakeNode) -> None:
        node.raft.role = Role.FOLLOWER
        node.fronts.links.clear()

    async def steps(node: FakeNode, task: asyncio.Task[None]) -> None:
        await task
        assert {(2, FRAME), (3, FRAME)} <= set(node.said)

    leave(steps, follows)
