"""Clients of the v2 tree in the simulator, and what must hold of what they are told.

TTLs are moments on the wall: the front that takes a request stamps it, the leader ends what is over. So a
node ends early or late by what two walls differ (``World.wall_skew_s`` each), and by no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from cluster.features.auth.state import AuthState
from cluster.features.rows import RowsOf, decode
from cluster.features.v2.events import Action, Brief, Event, concerns
from cluster.features.v2.requests import Answer, Get, Kind, read_body
from cluster.features.v2.shown import event_json, get_json
from cluster.features.v2.tree import KEYS, Tree, namespace
from cluster.wire.messages import HEAD, Method
from proxy.routing.router import MethodStats, Waiting
from proxy.v2.waiting.feed import Feed, Fired, Waiter
from tests.sim.world.order_world import Violation
from tests.unit.v2.tree.random_writes import NOW_NS, random_path, random_write

if TYPE_CHECKING:
    from tests.sim.world.order_host import FrontProcess, NodeProcess
    from tests.sim.world.order_sim import Simulation

EVERY_S = 0.02
BASE_S = NOW_NS / 1e9
SOLD_S = 0.5  # how long a read waits for what its front has shown
_ON_ITS_WAY_S = 0.2


class Told:
    """Somebody at a front who waits for everything below a path, again and again."""

    def __init__(
        self, clients: V2Clients, front: FrontProcess, feed: Feed, path: bytes, stream: bool
    ) -> None:
        self._clients = clients
        self._front = front
        self._feed = feed
        self.path = path
        self.stream = stream
        self.began = 0  # the index that its first answer named
        self.seen: list[int] = []
        self.through = 0  # the last index that it has asked from, less one
        self.waiter: Waiter | None = None
        self.ended = False
        self._wait(0)

    def _wait(self, since: int) -> None:
        self.waiter = self._feed.wait(self.path, True, since, self.stream, self._started, self._woken)

    def _started(self, answer: Answer | None) -> None:
        if answer is None or answer.code:
            self.ended = True
        elif not self.began:
            self.began = answer.index

    def _woken(self, fired: Fired | None) -> None:
        if fired is None:
            self.ended = True
            return
        event = fired.event
        if self.seen and event.index <= self.seen[-1]:
            raise Violation(
                "v2: each event once, in order", f"{self.path!r}: {event.index} after {self.seen[-5:]}"
            )
        self.seen.append(event.index)
        self._clients.known(event.index, event.encode(), "a wait")
        if not self.stream:
            self._wait(event.index + 1)


class V2Clients:
    """All of a run."""

    def __init__(self, simulation: Simulation, ttls: Sequence[int] = (0, 1, 100)) -> None:
        """``ttls``: in seconds, to choose from."""
        self._simulation = simulation
        self._ttls = ttls
        self._dark = False  # users of v3 are on at the end
        self._random = Random(f"{simulation.seed}/v2")
        self._feeds: dict[FrontProcess, tuple[Feed, list[Told]]] = {}
        self._log: dict[int, bytes] = {}  # by index, its event, as committed
        self._known_at: dict[int, float] = {}  # by index, when it was
        self._answered = 0  # the highest index that anybody was told
        self._tree = Tree()  # for requests that mean something
        self._written: list[tuple[Answer, bytes]] = []
        self._seen: dict[NodeProcess, int] = {}  # the first index that was not looked at
        self._leads: tuple[object, float] = (None, 0.0)  # who leads the highest term, and since when
        self._term = 0
        self.told: list[Told] = []
        self.did = {"written": 0, "refused": 0, "unknown": 0, "read": 0}
        simulation.at(0.5, None, self._look)

    def known(self, index: int, row: bytes, where: str) -> None:
        """An event that is shown somewhere: it is the same everywhere, for ever."""
        self._known_at.setdefault(index, self._simulation.now)
        new = index not in self._log
        if self._log.setdefault(index, row) != row:
            raise Violation("v2: one event for each index", f"{index} at {where}")
        if new:
            self._not_early(Event.decode(row))

    def _not_early(self, event: Event) -> None:
        """A node whose time is over ends when the fastest wall says so, at the earliest."""
        fastest_ns = (BASE_S + self._simulation.now + self._simulation.wall_skew_s) * 1e9
        if event.action == Action.EXPIRE and event.prev is not None and event.prev.expires_ns > fastest_ns:
            raise Violation("v2: no node ends early", f"{event} at {fastest_ns:.0f}")

    # -- what clients do

    def _look(self) -> None:
        simulation = self._simulation
        simulation.at(EVERY_S, None, self._look)
        self.look_at_nodes()
        for _, front in sorted(simulation.fronts.items()):
            if not front.alive or front.paused:
                continue
            if front not in self._feeds:
                front.happens(None, self._made(front))
            if front in self._feeds and not simulation.calm:
                front.happens(None, self._request(front))

    def _made(self, front: FrontProcess) -> Callable[[], None]:
        def make() -> None:
            feed = Feed(front.router)
            front.context.on_tick.append(feed.tick)
            path = self._random.choice((KEYS, b"/", KEYS + b"/a"))
            told = [Told(self, front, feed, path, stream) for stream in (True, False)]
            self.told += told
            self._feeds[front] = feed, told

        return make

    def _request(self, front: FrontProcess) -> Callable[[], None]:
        feed, _ = self._feeds[front]
        now_ns = int(front.wall_time() * 1e9)

        def write() -> None:
            before = self._answered
            asked = random_write(self._random, self._tree, now_ns, ttls=self._ttls)

            def answered(waiting: Waiting, status: int, body: bytes) -> None:
                if status != 0:
                    self.did["unknown"] += 1
                    return
                answer = Answer.decode(body, HEAD.size)
                feed.shown(answer.index)
                self._answered = max(self._answered, answer.index)
                least = before if answer.code else before + 1
                if answer.index < least:
                    raise Violation("v2: in real time", f"{asked}: {answer} after {before}")
                self.did["refused" if answer.code else "written"] += 1
                if not answer.code:
                    self._written.append((answer, namespace(asked.path)))

            front.router.write(None, Method.V2_WRITE, asked.encode(), 0, MethodStats(), answered)

        def read() -> None:
            before, shown, began = self._answered, feed.highest, front.time()
            path, quorum = random_path(self._random), self._random.random() < 0.5
            body = read_body(Kind.GET, shown, Get(path, True, True, now_ns).encode())

            def answered(waiting: Waiting, status: int, body: bytes) -> None:
                if status != 0:
                    return
                answer = Answer.decode(body, HEAD.size)
                feed.shown(answer.index)
                if quorum and answer.index < before:
                    raise Violation("v2: quorum reads are linearizable", f"{path!r}: {answer} after {before}")
                if answer.index < shown and front.time() - began < SOLD_S:
                    raise Violation("v2: no front goes back", f"{path!r}: {answer} after {shown}")
                self._answered = max(self._answered, answer.index)
                self.did["read"] += 1

            front.router.read(None, Method.V2_READ, body, 0, not quorum, MethodStats(), answered)

        return write if self._random.random() < 0.7 else read

    # -- what must hold

    def _nodes(self) -> list[NodeProcess]:
        return [p for (_, shard), p in sorted(self._simulation.nodes.items()) if shard == 0 and p.alive]

    def look_at_nodes(self) -> None:
        """What each replica has applied."""
        for process in self._nodes():
            leader = process.node.writes.leader
            if leader is not None and leader is not self._leads[0] and leader.term > self._term:
                self._leads, self._term = (leader, self._simulation.now), leader.term
            tree = process.node.serve.v2.tree
            assert tree.history is not None
            seen = self._seen.get(process, 0)
            for row in tree.history.since(max(seen, tree.history.first)):
                self.known(Brief.of(row).index, row, process.name)
            self._seen[process] = tree.index + 1
            if tree.index > self._tree.index:
                self._tree = tree.copy()

    def check(self) -> None:
        """All is quiet."""
        self.look_at_nodes()
        trees = [process.node.serve.v2.tree for process in self._nodes()]
        last = trees[0].index
        shown = [_everything(tree) for tree in trees]
        stored = [_everything(Tree(p.node.store.feature_rows(RowsOf.V2))) for p in self._nodes()]
        if any(one != shown[0] for one in (*shown, *stored)):
            raise Violation("v2: all replicas are equal, and are what they have stored", f"{shown} {stored}")
        self._dark_while_users()
        first = min(self._log, default=4)
        if sorted(self._log) != list(range(first, last + 1)) or first != 4:
            raise Violation("v2: one event for each index", f"{sorted(self._log)} up to {last}")
        for answer, prefix in self._written:
            if event_json(Event.decode(self._log[answer.index]), prefix) != answer.body:
                raise Violation("v2: what was answered is what was logged", f"{answer}")
        then = self._simulation.now - 1.0 - self._simulation.wall_skew_s
        now_ns = int((BASE_S + then) * 1e9)
        due = trees[0].next_expiry_ns
        late = trees[0].first_due() if due is not None and due <= now_ns else None
        if self._leads[1] < then and late is not None and self._known_at[late.modified] < then:
            raise Violation("v2: nodes end in time", f"{late.key!r}, {late.expires_ns} at {now_ns}")
        for front, (_, told) in self._feeds.items():
            for one in told:
                if front.alive and not one.ended:
                    self._was_told(one, last)

    def _dark_while_users(self) -> None:
        """Nobody writes while users of v3 are on; what is over ends all the same."""
        users, tree = AuthState(), Tree()
        for index, body in self._simulation.checker.replay.rows:
            feature, rows = decode(body, 0, len(body))
            if feature == RowsOf.AUTH:
                users.take(rows)
            elif feature == RowsOf.V2:
                for row, _ in tree.take(rows):
                    if users.enabled and Event.decode(row).action != Action.EXPIRE:
                        raise Violation(
                            "v2: nobody writes while users of v3 are on",
                            f"{Event.decode(row)} in {index}",
                        )
        self._dark = users.enabled

    def _was_told(self, one: Told, last: int) -> None:
        briefs = [Brief.of(self._log[index]) for index in range(one.began + 1, last + 1)]
        due = [b.index for b in briefs if concerns(one.path, True, b, False)]
        if self._dark:  # one who had to look back was refused, and will look back again
            due = [index for index in due if index <= max(one.seen, default=0)]
        optional = {b.index for b in briefs if b.sweeps and one.path.startswith(b.key + b"/")}
        latest = self._simulation.now - _ON_ITS_WAY_S  # what ended by its TTL just now may be on its way
        optional |= {index for index, at in self._known_at.items() if at > latest}
        if [i for i in one.seen if i not in optional] != [i for i in due if i not in optional]:
            raise Violation(
                "v2: who waits misses nothing", f"{one.path!r} since {one.began}: {one.seen}, not {due}"
            )


def _everything(tree: Tree) -> tuple[object, ...]:
    assert tree.history is not None
    return (
        get_json(tree.root, b"", True, True, 0),
        tree.index,
        tree.counts,
        tree.history.since(tree.history.first),
    )
