"""What a node leaves alone while nobody wants anything of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import node.links
import node.links.siblings
from cluster.settings import Peer
from cluster.wire.messages import Method, Status, answer, frame
from node.links.siblings import NodeLink, NodeLinks
from node.replica.clock import Clock
from node.replica.moving.disks import Disks
from node.replica.moving.of_order import OrderMoves
from node.replica.moving.sources import DURABLE


class Loop:
    """Time goes by when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> SimpleNamespace:
        self.due.append((self.now + delay_s, callback))
        return SimpleNamespace(cancel=self.due.clear)

    def run_until(self, end: float) -> None:
        while self.due and min(self.due, key=lambda d: d[0])[0] <= end:
            timer = min(self.due, key=lambda d: d[0])
            self.due.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = end


class Socket:
    """A connection that nothing ever comes from."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def unfinished(self) -> int:
        return 0


@pytest.fixture
def links() -> NodeLinks:
    peers = [Peer(m, f"h{m}", "h", 1000) for m in (1, 2, 3)]
    common: Any = SimpleNamespace(
        limit_s=7.0, member_id=1, run_dir="/run", peers=peers, election_timeout_ms=1000, silence_s=1.0
    )
    machine: Any = SimpleNamespace(loop=Loop(), dial=lambda *args, **others: Socket(), random_bytes=bytes)
    return NodeLinks(machine, common, lambda: None, {peer.member_id: peer for peer in peers}.get)


def pass_time(links: NodeLinks, seconds: float) -> None:
    loop: Any = links.loop
    loop.now += seconds


def test_links_that_nobody_looks_at_are_dropped_and_made_again_when_wanted(links: NodeLinks) -> None:
    feed, other = links.get(1, 0), links.get(2, 0)
    pass_time(links, 9.0)
    links.drop_unused(feed)
    assert other.alive
    pass_time(links, 2.0)
    links.drop_unused(feed)
    assert feed.alive
    assert not other.alive
    again = links.get(2, 0)
    assert again.alive
    assert again is not other
    assert again in links.dirty  # it introduces itself at once


def test_a_host_that_others_name_is_found_once_it_is_known_where_it_is(links: NodeLinks) -> None:
    """A sequencer that was added while this host was down: asking for a link to it ended the node."""
    assert links.find(9, 0) is None
    assert links.find(2, 0) is links.get(2, 0)
    assert links.find(1, 0) is links.get(1, 0), "this host itself"


def test_i23_answers_are_waited_for_as_long_as_a_front_waits_and_a_subscriptions_for_ever(
    links: NodeLinks,
) -> None:
    link, heard = links.get(1, 0), []
    link.request(Method.FEED, b"", lambda status, body: heard.append("feed"), stays=True)
    link.request(Method.QUERY, b"", lambda status, body: heard.append("query"))
    pass_time(links, 6.0)
    late = link.request(Method.PREPARE, b"", lambda status, body: heard.append("prepare"))
    link.excuse(6.0, links.loop.time())
    links.sweep()
    assert link.waiting == 3
    pass_time(links, 2.0)
    links.sweep()
    assert link.waiting == 2
    link._frame([frame(1, [answer(rid, Status.OK, b"") for rid in (late, 2)])])
    link._frame([frame(2, [answer(1, Status.PARTIAL, b"")])])
    assert heard == ["prepare", "feed"]
    assert link.waiting == 1


def test_i23_so_many_answers_are_waited_for_and_no_more(
    links: NodeLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.links.siblings, "_MOST_CALLBACKS", 3)
    link, heard = links.get(1, 0), []
    link.request(Method.FEED, b"", lambda status, body: heard.append(1), stays=True)
    for rid in range(2, 6):
        link.request(Method.QUERY, b"", lambda status, body, rid=rid: heard.append(rid))
        assert link.waiting <= 3
    link._frame([frame(1, [answer(rid, Status.OK, b"") for rid in range(1, 6)])])
    assert heard == [1, 4, 5], "the oldest are forgotten, and asked again"


def test_a_link_that_is_looked_at_now_and_then_stays(links: NodeLinks) -> None:
    kept: NodeLink = links.get(2, 0)
    for _ in range(10):
        pass_time(links, 6.0)
        assert links.get(2, 0) is kept
        links.drop_unused(None)
    assert kept.alive


def test_a_link_is_not_silent_while_this_nodes_own_loop_was_held(links: NodeLinks) -> None:
    heard, silent = links.get(1, 0), links.get(2, 0)
    links.sweep()
    pass_time(links, 3.0)
    links.sweep()
    assert heard.alive
    assert silent.alive
    heard._frame([frame(1, [])])
    for _ in range(8):
        pass_time(links, 0.1)
        links.sweep()
    assert heard.alive
    assert not silent.alive


def clock_of(loop: Loop, beats: list[float], ticks: list[float]) -> Clock:
    nothing = SimpleNamespace(sweep=lambda *now: None, tick=lambda: None, second=lambda: None)
    fake: Any = SimpleNamespace(
        loop=loop, now_ms=lambda: round(loop.now * 1000),
        settings=SimpleNamespace(common=SimpleNamespace(heartbeat_interval_ms=100, election_timeout_ms=1000)),
        raft=SimpleNamespace(tick=lambda now_ms: ticks.append(loop.now), next_deadline=lambda: 1 << 60),
        standing=SimpleNamespace(say_state=lambda: None, say_ready=lambda: None, second=lambda now: None),
        upkeep=nothing, writes=SimpleNamespace(leader=None), reads=nothing, fronts=nothing, snapshots=nothing,
        backups=nothing, streams=nothing, role=SimpleNamespace(links=None), wake=lambda: None)
    clock = Clock(fake)
    clock.each_heartbeat(lambda: beats.append(loop.now))
    return clock


def test_a_loop_that_was_held_reads_what_peers_have_said_before_raft_is_told_the_time() -> None:
    loop, ticks = Loop(), list[float]()
    clock_of(loop, [], ticks).start()
    loop.run_until(101.0)
    (due,) = loop.due
    loop.due.clear()
    ticks.clear()
    loop.now = due[0] + 2.0
    due[1]()
    assert ticks == [], "the sockets are read now"
    loop.run_until(loop.now + 0.01)
    assert len(ticks) == 1
    loop.run_until(loop.now + 1.0)
    assert len(ticks) >= 9, "it ticks on as before"


@pytest.mark.parametrize(("calm", "most", "least"), [(True, 4, 4), (False, 10, 9)])
def test_a_heartbeats_work_is_done_less_often_where_nobody_waits(calm: bool, most: int, least: int) -> None:
    loop = Loop()
    beats: list[float] = []
    clock = clock_of(loop, beats, [])
    clock.calm = calm
    clock.start()
    loop.run_until(110.0)
    seconds = [sum(100 + s < beat <= 101 + s for beat in beats) for s in range(10)]
    assert max(seconds) <= most
    assert min(seconds) >= least


def test_links_that_were_asked_for_disks_are_released_once_nothing_is_to_be_asked(
    links: NodeLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 0 keeps its other links, whatever it asks: it reads in them who leads."""
    monkeypatch.setattr(links, "flush", lambda: None)
    disks = Disks(links)
    disks.ask((2, 3), 0, 7)
    asked, other = [links.get(member, 0) for member in (2, 3)], links.get(2, 1)
    pass_time(links, 9.0)
    disks.release()
    assert all(link.alive for link in asked)
    pass_time(links, 2.0)
    disks.release()
    assert not any(link.alive for link in asked)
    assert (2, 0) not in links
    assert other.alive
    links.get(2, 0)  # another part's, from here on
    pass_time(links, 11.0)
    disks.release()
    assert (2, 0) in links


def test_node_0_releases_links_by_which_a_source_asked_once_its_rows_are_deleted(
    links: NodeLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "flush", lambda: None)
    left = {1: SimpleNamespace(target=4, order_index=7)}
    moved: Any = SimpleNamespace(
        table=None, left=left, may_drop=lambda number: True, drop=lambda number: iter(()))
    seconds: list[Callable[[], None]] = []
    node: Any = SimpleNamespace(
        loop=links.loop, now_ms=lambda: 0, store=None, handlers={}, frames={}, applied_index=9,
        settings=SimpleNamespace(common=links.common, shard=0),
        machine=SimpleNamespace(perf_counter=lambda: 0.0),
        clock=SimpleNamespace(each_second=seconds.append), upkeep=SimpleNamespace(moved_rows_went=left.clear),
        raft=SimpleNamespace(configuration=SimpleNamespace(voters={1, 2, 3}), commit_index=9))
    role: Any = SimpleNamespace(links=links, writes=SimpleNamespace(leader=None))
    kinds: Any = SimpleNamespace(mover=None, moved=lambda store: moved)
    OrderMoves(role, node, kinds)

    def second(after_s: float) -> None:
        pass_time(links, after_s)
        for call in seconds:
            call()

    second(1.0)
    asked, other = [links.get(member, 4) for member in (1, 2, 3)], links.get(2, 1)
    second(11.0)
    assert left
    assert all(link.alive for link in asked), "they are asked again"
    for link in asked:
        for answered, _ in [*link._callbacks.values()]:
            answered(Status.OK, DURABLE.pack(7))
    second(1.0)
    assert not left
    second(11.0)
    assert not any(link.alive for link in asked)
    assert other.alive
