"""Large directories go at once for those who read, and in bounded turns for those who keep their rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects.records import ITEM
from cluster.features.rows import Row, RowsOf, decode
from cluster.features.v2 import changes
from cluster.features.v2.changes import evaluate, expire
from cluster.features.v2.events import Event, decode_news, encode_news, told
from cluster.features.v2.plain import plain_set
from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Answer, Op, Write
from cluster.features.v2.shown import get_json
from cluster.features.v2.tree import KEYS, SetRows, Tree
from node.serving.v2 import V2Tree
from proxy.v2.waiting.feed import Feed, Fired
from tests.unit.v2.requests.waiting.feeding import Router, looked
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_path, random_write

CHAINS, DEEP = 12, 700
FILES = 9000
TOP = KEYS + b"/x"
Kept = dict[bytes, bytes]


def keep(kept: Kept, rows: list[Row]) -> None:
    """What a store does with logged rows."""
    for name, value in rows:
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value


def put(leader: Tree, kept: Kept, path: bytes, **more: Any) -> None:
    rows = evaluate(leader, Write(Op.SET, path, now_ns=NOW_NS, **more)).rows
    leader.take(rows)
    keep(kept, rows)


def delete(leader: Tree) -> list[Row]:
    rows = evaluate(leader, Write(Op.DELETE, TOP, recursive=True, now_ns=NOW_NS)).rows
    leader.take(rows)
    return rows


def chains() -> tuple[Tree, Kept]:
    """Few requests that make many levels, below a directory with a TTL."""
    leader, kept = Tree(keep_events=False), Kept()
    put(leader, kept, TOP, directory=True, expires_ns=NOW_NS + S)
    for number in range(CHAINS):
        put(leader, kept, TOP + b"/%d" % number + b"/a" * DEEP)
    return leader, kept


def files(expires_ns: int = 0) -> tuple[Tree, Kept]:
    """Many files there."""
    leader, kept = Tree(keep_events=False), Kept()
    put(leader, kept, TOP, directory=True, expires_ns=NOW_NS + S)
    for number in range(FILES):
        put(leader, kept, TOP + b"/%d" % number, expires_ns=expires_ns)
    return leader, kept


def logged(leader: Tree, kept: Kept, first: list[Row]) -> list[list[Row]]:
    """The rows that end what is over, by entry, once all have been logged."""
    entries = [first] if first else []
    keep(kept, first)
    while rows := expire(leader, NOW_NS + 10 * S):
        entries.append(rows)
        keep(kept, rows)
        assert len(entries) < 1000
    return entries


def nodes(kept: Kept) -> set[bytes]:
    return {name[1:] for name in kept if name[:1] == b"n"}


def seen(tree: Tree) -> tuple[bytes, int]:
    return get_json(tree.root, b"", True, True, NOW_NS), tree.index


@pytest.mark.parametrize("make", [chains, files])
@pytest.mark.parametrize("end", [delete, lambda leader: []], ids=["deleted", "expired"])
def test_a_large_directory_goes_at_once_and_its_rows_in_bounded_entries(
    make: Callable[[], tuple[Tree, Kept]], end: Callable[[Tree], list[Row]]
) -> None:
    """One entry took 90 ms for each request of 4 KB, so a leader of many was deposed, and so was the next."""
    leader, kept = make()
    replica, below = Tree(sorted(kept.items())), nodes(kept)
    entries = logged(leader, kept, end(leader))
    events = []
    for place, rows in enumerate(entries):
        assert len(rows) < 8000
        assert sum(len(name) for name, _ in rows) < 2_000_000
        events += [(place, Event.decode(row), set(paths)) for row, paths in replica.take(rows)]
        assert replica.find(KEYS).children == {}
    ((place, event, swept),) = events
    assert (place, event.node.key, swept) == (0, TOP, below)
    assert len(entries) > 2
    assert not nodes(kept)
    assert not [name for name in kept if name[:1] == b"g"]
    for tree in (leader, replica):
        assert not tree.going
        assert not tree.next_expiry_ns


def test_what_is_below_a_node_that_went_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of older logs: one item with the row of each node."""
    monkeypatch.setattr(changes, "_MOST_AT_ONCE", 1 << 60)
    monkeypatch.setattr(changes, "_MOST_BYTES_AT_ONCE", 1 << 60)
    leader, kept = chains()
    replica, below, asked = Tree(sorted(kept.items())), nodes(kept), []
    monkeypatch.setattr(
        Tree, "_remove", lambda tree, path, remove=Tree._remove: (asked.append(path), remove(tree, path)))
    ((_, swept),) = replica.take(delete(leader))
    assert set(swept) == below
    assert len(below) > CHAINS * DEEP
    assert asked == [TOP, TOP]
    assert replica.find(KEYS).children == {}


def test_times_of_files_that_went_hold_nothing_up() -> None:
    leader, kept = files(NOW_NS + 2 * S)
    first = expire(leader, NOW_NS + S)
    put(leader, kept, TOP + b"/7", expires_ns=NOW_NS + 3 * S)
    replica = Tree(sorted(kept.items()))
    ends = []
    for rows in logged(leader, kept, first):
        ends += [Event.decode(row).node.key for row, _ in replica.take(rows)]
    assert ends == [TOP, TOP + b"/7"]
    assert not leader.next_expiry_ns
    assert not replica.next_expiry_ns


def test_a_file_that_is_made_in_the_place_of_one_that_went_does_not_end_at_its_time() -> None:
    """The most frequent set looks at no time of the path, and the leader had cleared only some of them."""
    leader, kept = files(NOW_NS + 2 * S)
    keep(kept, delete(leader))
    put(leader, kept, TOP + b"/first")
    rows = SetRows()
    assert plain_set(leader, Write(Op.SET, TOP + b"/7", b"stays", now_ns=NOW_NS).encode(), rows)
    logged(leader, kept, [*rows, *leader.counters()])
    for tree in (leader, Tree(sorted(kept.items()))):
        assert tree.find(TOP + b"/7").value == b"stays"
        assert not tree.next_expiry_ns


def test_times_of_files_that_were_cleared_are_left_nowhere() -> None:
    """A leader forgot 4,000 each heartbeat, and what expired behind them waited for that."""
    leader, kept = files(NOW_NS + 2 * S)
    put(leader, kept, KEYS + b"/later", expires_ns=NOW_NS + 3 * S)
    keep(kept, delete(leader))
    while leader.going:
        keep(kept, expire(leader, NOW_NS + S))
    (ended, *_) = [name[1:] for name, row in expire(leader, NOW_NS + 3 * S) if row is None]
    assert ended == KEYS + b"/later"


class Replicas:
    """A leader and a replica whose store is known; ``most``: nodes of a directory that is not large."""

    def __init__(self, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leader, self.replica, self.kept = Tree(keep_events=False), Tree(), Kept()
        self._limit = lambda: monkeypatch.setattr(changes, "_MOST_AT_ONCE", most)
        self.large = 0

    def _log(self, rows: list[Row]) -> list[tuple[bytes, set[bytes]]]:
        keep(self.kept, rows)
        self.large += sum(name[:1] == b"g" and value is not None for name, value in rows)
        return [(row, set(swept)) for row, swept in self.replica.take(rows)]

    def write(self, write: Write) -> list[tuple[bytes, set[bytes]]]:
        self._limit()
        try:
            rows = evaluate(self.leader, write).rows
        except V2Error:
            return []
        self.leader.take(rows)
        return self._log(rows)

    def expire(self, now_ns: int) -> list[tuple[bytes, set[bytes]]]:
        self._limit()
        return self._log(expire(self.leader, now_ns))

    def start_anew(self) -> Tree:
        return Tree(sorted(self.kept.items()))


@pytest.mark.parametrize("seed", range(4))
def test_directories_that_go_in_parts_look_as_if_they_went_whole(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is made in their places meanwhile, whichever leads, and whenever a replica starts."""
    rng, now_ns = random.Random(seed), NOW_NS
    whole, parted = Replicas(1 << 60, monkeypatch), Replicas(3, monkeypatch)
    clear, speeds = Tree.clear, [0, 0, 0, 1, 2]
    monkeypatch.setattr(
        Tree, "clear", lambda tree, most, most_bytes: clear(tree, rng.choice(speeds), most_bytes))
    in_parts = 0
    for step in range(1500):
        now_ns += rng.choice((0, 0, S))
        write = random_write(rng, whole.leader, now_ns, (1, 3))
        if rng.random() < 0.05:
            write = Write(Op.DELETE, random_path(rng), recursive=True, now_ns=now_ns)
        assert parted.write(write) == whole.write(write)
        assert parted.expire(now_ns) == whole.expire(now_ns)
        in_parts += bool(parted.replica.going)
        if step % 10 == 0:
            assert seen(parted.start_anew()) == seen(parted.replica) == seen(whole.replica)
        if rng.random() < 0.05:
            parted.replica = parted.start_anew()
        if rng.random() < 0.05:
            parted.leader = parted.replica.copy()
    assert in_parts > 200
    speeds[:] = [1000]
    assert parted.expire(now_ns) == []
    assert {name: row for name, row in parted.kept.items() if name != b"c"} == {
        name: row for name, row in whole.kept.items() if name != b"c"}
    assert parted.replica.next_expiry_ns == whole.replica.next_expiry_ns
    assert not parted.replica.going


class Followed:
    """The node's side of its link."""

    alive = True

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def answer(self, rid: int, status: int, news: bytes) -> None:
        self.told.append(news)


class Front:
    """One with waits, and the node that it follows."""

    def __init__(self, kept: Kept) -> None:
        self.soon: list[Callable[[], object]] = []
        self.items: list[bytes] = []
        self.router = Router()
        self.feed = Feed(self.router)  # type: ignore[arg-type]
        self.ended: list[tuple[bytes, int]] = []
        link: Any = Followed()
        self.told: list[bytes] = link.told
        self.writes = SimpleNamespace(
            leader=None, has_room=True, in_turn=lambda work: work(self.writes.leader))
        node: Any = SimpleNamespace(
            store=SimpleNamespace(feature_rows=lambda _: sorted(kept.items())),
            writes=self.writes,
            machine=SimpleNamespace(wall_time=lambda: NOW_NS / 1e9 + 2),
            loop=SimpleNamespace(time=lambda: 0.0, call_soon=self.soon.append),
            wake=lambda: None, mark_dirty=lambda link: None,
        )
        self.v2 = V2Tree(node)
        self.v2.follow(link, b"\1")

    def lead(self) -> None:
        tree = self.v2.tree.copy()
        leader: Any = SimpleNamespace(v2=tree, counted=tree, append=self.items.append, dirty=False)
        self.writes.leader = leader

    def wait(self, path: bytes) -> None:
        def woken(fired: Fired | None) -> None:
            assert fired is not None
            assert fired.event.index <= self.feed.highest, "its client's next read may go to another node"
            self.ended.append((path, fired.event.index))

        waiter = self.feed.wait(path, False, 0, False, lambda answer: None, woken)
        self.router.answer(waiter, Answer(self.v2.tree.index, b""))

    def heartbeat(self) -> int:
        """The rows that it logs."""
        self.v2.look()
        rows: list[Row] = []
        for item in self.items:
            rows += decode(item, ITEM.size, len(item))[1]
        self.items.clear()
        if rows:
            self.v2.applied({RowsOf.V2: rows})
        return len(rows)

    def turn(self) -> None:
        """A turn of the node's loop, and what the front gets of it."""
        soon = self.soon[:]
        del self.soon[:]
        for callback in soon:
            callback()
        for news in self.told:
            self.router.v2_news(self.router.routes[0].replica, news)
        self.told.clear()
        while self.router.soon:
            self.router.turn()


def test_a_leader_ends_a_large_directory_over_heartbeats_and_each_wait_in_it() -> None:
    _, kept = files()
    front = Front(kept)
    index = front.v2.tree.index
    waited = [TOP, *[TOP + b"/%d" % number for number in range(0, FILES, 100)]]
    for path in [*waited, TOP + b"/not there", KEYS + b"/other"]:
        front.wait(path)
    front.lead()
    assert front.heartbeat() < 8000
    assert front.v2.tree.find(KEYS).children == {}, "nobody sees a part of it"
    assert sum(map(len, front.told)) < 100_000
    front.turn()
    assert 0 < len(front.ended) < len(waited)
    turns = 0
    while front.soon:
        front.turn()
        turns += 1
    assert turns > 5
    assert front.ended[0] == (TOP, index + 1)
    assert sorted(front.ended) == sorted((path, index + 1) for path in waited)
    beats = 0
    while front.v2.tree.going:
        assert front.heartbeat() < 8000
        beats += 1
    assert beats > 1
    while front.v2.tree._left:
        assert front.heartbeat() == 0


def test_waits_above_a_large_directory_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were at each step: 10,000 of them at 600 steps took the front seconds."""
    concerned, found = Feed._concerned, []

    def noted(feed: Feed, *given: Any) -> Any:
        found.append(len(concerned(feed, *given)))
        return concerned(feed, *given)

    monkeypatch.setattr(Feed, "_concerned", noted)
    _, kept = files()
    front = Front(kept)
    for _ in range(20):
        waiter = front.feed.wait(KEYS, True, 0, True, lambda answer: None, lambda fired: None)
        front.router.answer(waiter, Answer(front.v2.tree.index, b""))
    front.lead()
    front.heartbeat()
    front.turn()
    while front.soon:
        front.turn()
    assert len(found) == 10
    assert sum(found) == 20


def test_events_wait_for_those_before_them_and_a_lost_link_loses_none() -> None:
    _, kept = files()
    front = Front(kept)
    index = front.v2.tree.index
    waited = [TOP + b"/%d" % number for number in range(0, FILES, 10)]
    for path in [*waited, KEYS + b"/other"]:
        front.wait(path)
    front.lead()
    front.heartbeat()
    rows = evaluate(front.v2.tree, Write(Op.SET, KEYS + b"/other", b"1")).rows
    front.v2.applied({RowsOf.V2: rows})
    front.turn()
    assert (KEYS + b"/other", index + 2) not in front.ended
    ended = len(front.ended)
    assert 0 < ended < len(waited)
    front.router.v2_news(front.router.routes[0].replica, encode_news(index + 2, True, []))
    front.router.turn()
    assert looked(front.router) == index + 1, "the others find the directory's end in the past"
    assert len(front.router.sent) - len(waited) - 1 == len(waited) + 1 - ended


def test_a_small_directory_is_told_in_one_step() -> None:
    events = [(b"row", (b"/1/d", b"/1/d/a")), (b"other", ())]
    ((news, more),) = told(7, events)
    assert (decode_news(news), more) == ((7, False, events), False)


def test_what_goes_is_made_again_and_goes_again_in_one_batch() -> None:
    leader, replica, rows = Tree(keep_events=False), Tree(), []
    for write in (
        Write(Op.SET, TOP + b"/a"), Write(Op.DELETE, TOP, recursive=True), Write(Op.SET, TOP + b"/a"),
        Write(Op.DELETE, TOP + b"/a"), Write(Op.SET, TOP + b"/b"), Write(Op.DELETE, TOP, recursive=True),
    ):  # fmt: skip
        rows += evaluate(leader, write).rows
        leader.take(rows)
    swept = [set(paths) for _, paths in replica.take(rows)]
    assert swept == [set(), {TOP, TOP + b"/a"}, set(), set(), set(), {TOP, TOP + b"/b"}]
    assert replica.find(KEYS).children == {}
