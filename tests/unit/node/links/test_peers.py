"""A vote that is asked for after a restart is not lost: it is the first frame of a link that was idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

import node.links.peers as peers_of_node
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire import frames
from cluster.wire.messages import SPOKEN
from node.links import peer_link
from node.links.incarnations import Incarnations
from node.links.peer_link import REFUSED_CLUSTER, REFUSED_PROMISE, REFUSED_VERSION, RETRY_S, PeerLink
from node.links.peers import HELLO, Peers
from tests.cluster.nodes import free_ports
from tools.muster.machine.real import RealMachine


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


class Fixed:
    """Members that nobody changes."""

    def __init__(self, own: int, members: tuple[Peer, ...]) -> None:
        self.members = {p.member_id: p for p in members if p.member_id != own}
        self.removed: set[int] = set()

    def reachable(self) -> dict[int, Peer]:
        return dict(self.members)

    def is_removed(self, member_id: int) -> bool:
        return member_id in self.removed

    def described(self, *, alone: bool = False) -> bytes:
        return b"{}"

    def told(self, member_id: int, description: bytes) -> None:
        pass


class Accepting(Incarnations):
    """Knows nobody, and takes everybody."""

    def __init__(self, good: bool = True) -> None:
        self.good = good

    def accept(self, member_id: int, incarnation: int) -> bool:
        return self.good

    def heard(self, member_id: int) -> None:
        return None


def peers(own: int, ports: list[int], came: list[tuple[int, int, bytes]], good: bool = True,
          refused: list[str] | None = None, at: int | None = None) -> Peers:
    """``at``: the own port; None: the one of the list."""
    members = tuple(Peer(i + 1, f"host{i}", "127.0.0.1", port) for i, port in enumerate(ports))
    common = Common(7, own, "h", 1, 2, members, "/nowhere")
    machine = RealMachine(asyncio.get_running_loop(), common)
    settings = NodeSettings(
        common, 0, "/nowhere", "127.0.0.1", ports[own - 1] if at is None else at, incarnation=own)
    promises: Any = SimpleNamespace(standing=list, broken=lambda member_id, parts: b"")
    return Peers(
        machine, settings, roster=Fixed(own, members), incarnations=Accepting(good), promises=promises,
        on_frame=lambda *frame: came.append(frame), on_front=lambda *_: None,
        on_refused=lambda peer, code, reason: (refused if refused is not None else []).append(reason),
    )


@pytest.mark.parametrize("good", [True, False], ids=["accepted", "refused"])
def test_the_first_frame_to_a_host_that_restarted(good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[bytes, tuple[float, bytes]]] = []  # at once after a refusal: a frame may come behind it
    gone = Peers._gone

    def noted(self: Peers, identity: bytes) -> None:
        gone(self, identity)
        kept.append(dict(self._early))

    monkeypatch.setattr(Peers, "_gone", noted)

    async def scenario() -> None:
        ports = free_ports(2)
        came: list[tuple[int, int, bytes]] = []
        refused: list[str] = []
        asker, asked = peers(1, ports, [], refused=refused), peers(2, ports, came)
        await until(lambda: asker.send(2, b"R", b"before") and came)
        asked.close()
        await until(lambda: not asker.send(2, b"R", b"lost"))
        came.clear()
        asked = peers(2, ports, came, good)
        await until(asker.links[2]._socket.stands)
        await until(lambda: asker.send(2, b"R", b"the vote") or refused)  # once
        if good:
            await until(lambda: came)
            assert came == [(1, ord("R"), b"the vote")]
        else:
            await until(lambda: refused)
            assert kept
            assert (came, [early for early in kept if early]) == ([], [])
            assert not asker.send(2, b"R", b"to nobody"), "who refuses this node takes nothing of it"
        asked.close()
        asker.close()

    asyncio.run(scenario())


def test_round_trips_are_measured_and_odd_ones_ignored() -> None:
    async def scenario() -> None:
        ports = free_ports(2)
        came: list[tuple[int, int, bytes]] = []
        one, other = peers(1, ports, came), peers(2, ports, came)
        one.round_trips.start()  # before the link stands: nobody answers
        await until(lambda: one.send(2, b"R", b"") and came)
        for odd in (b"", b"short", bytes(9)):
            assert one.send(2, b"T", odd)
            assert one.send(2, b"t", odd)
        one.round_trips.stop()
        one.round_trips.start()
        await until(lambda: one.round_trips.took[2].count == 1)
        assert 0 < one.round_trips.took[2].sum < 20
        assert other.round_trips.took[1].count == 0
        assert [kind for _, kind, _ in came if kind != ord("R")] == []
        one.close()
        other.close()

    asyncio.run(scenario())


class Socket:
    """A dealer that is connected."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.trouble = ""

    def send(self, parts: list[bytes]) -> bool:
        self.sent += parts
        return True

    def stands(self) -> bool:
        return True

    def unfinished(self) -> int:
        return 0

    def hint(self) -> str:
        return ""


def test_a_host_that_is_refused_says_hello_again_after_a_while_or_on_another_connection() -> None:
    """It once did for every frame, and both sides logged each: eleven lines a second at a healthy leader."""
    socket, refused, now = Socket(), [], [100.0]
    made: Any = []

    def connect(receive: Any, opened: Any) -> Any:
        made.extend((receive, opened))
        return socket

    link = PeerLink(
        connect,
        Peer(2, "h2", "10.0.0.2", 2380),
        lambda version: [b"H"],
        lambda *given: refused.append(given),
        lambda: b"{}",
        lambda: now[0],
        cast(Any, None),
    )
    receive, opened = made
    opened()
    assert socket.sent == [b"H"]
    receive([b"X" + bytes((REFUSED_CLUSTER,)) + b"cluster ID\nmismatch"])
    assert link.trouble() == (
        "it refuses this host: cluster ID?mismatch",
        "compare --initial-cluster-token and --initial-cluster of both hosts",
    )
    for _ in range(100):
        assert not link.send(b"R", b"x")
        receive([b"?"])
        link.look()
    assert socket.sent == [b"H"]
    now[0] += RETRY_S
    link.look()
    assert socket.sent == [b"H", b"H"]
    receive([b"J"])
    assert socket.sent.pop() == b"J{}", "a peer that does not find this node asks where it is"
    receive([b"X" + bytes((REFUSED_CLUSTER,)) + b"cluster ID mismatch"])
    opened()
    assert socket.sent == [b"H"] * 3
    assert link.trouble()[0], "nobody knows yet whether that was any better"
    now[0] += 1.5
    assert link.trouble() == ("", "")
    assert link.send(b"R", b"x")
    assert len(refused) == 2


def test_frames_of_who_never_said_hello_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 of them were kept for ever, and then none of anybody else."""

    async def scenario() -> None:
        ports = free_ports(2)
        came: list[tuple[int, int, bytes]] = []
        asked = peers(2, ports, came)
        for n in range(peers_of_node._MOST_EARLY):
            asked._receive([b"p%d" % n, b"Rnobody"])
        hello = b"H" + HELLO.pack(frames.LOWEST, 7, 1, 1, 0)
        for identity, expected in ((b"early", []), (b"later", [(1, ord("R"), b"later")])):
            asked._receive([identity, b"R" + identity])
            asked._receive([identity, hello])
            assert came == expected
            assert len(asked._early) <= peers_of_node._MOST_EARLY
            monkeypatch.setattr(peers_of_node, "_EARLY_S", 0.0)
        asked.close()

    asyncio.run(scenario())


def test_a_link_tells_since_when_it_stands() -> None:
    """Not since somebody looked: members may be changed five seconds after, to the moment."""
    now = [100.3]
    link, _, (receive, opened) = link_that_names_its_version(now)
    assert link.since(100.0) == 100.0, "its socket has not told"
    opened()
    now[0] = 107.0
    assert (link.trouble()[0], link.since(now[0])) == ("", 100.3)
    opened()
    assert link.since(now[0]) == 107.0, "it broke, and was made anew between two looks at it"
    now[0] = 108.0
    receive([b"X" + bytes((REFUSED_CLUSTER,)) + b"cluster ID mismatch"])
    assert link.since(now[0]) == 108.0


def test_each_loss_of_a_link_is_counted_once() -> None:
    now = [100.0]
    link, socket, (receive, opened) = link_that_names_its_version(now)
    socket.trouble = "not tried yet"
    link.look()
    assert (link.active(), link.losses) == (False, 0)
    socket.trouble = ""
    opened()
    assert (link.active(), link.losses) == (True, 0)
    socket.trouble = "Connection refused"
    for _ in range(3):
        link.look()
    assert (link.active(), link.losses) == (False, 1)
    socket.trouble = ""
    opened()
    opened()
    assert (link.active(), link.losses) == (True, 2), "it broke, and was made anew between two looks at it"
    now[0] += 5.0
    for _ in range(3):
        receive([b"X" + bytes((REFUSED_CLUSTER,)) + b"cluster ID mismatch"])
        link.look()
        now[0] += RETRY_S
        opened()
    assert (link.active(), link.losses) == (False, 3)
    now[0] += 1.5
    assert (link.active(), link.losses) == (True, 3)


def test_a_link_that_is_refused_at_once_was_none_to_lose() -> None:
    link, _, (receive, opened) = link_that_names_its_version([100.0])
    opened()
    receive([b"X" + bytes((REFUSED_CLUSTER,)) + b"cluster ID mismatch"])
    assert (link.active(), link.losses) == (False, 0)


@pytest.mark.parametrize("kept", [True, False])
def test_a_link_whose_hello_was_read_late_says_hello_again(kept: bool) -> None:
    judged: list[bytes] = []
    judge: Any = SimpleNamespace(keeps=lambda promised: judged.append(promised) or kept)
    link, socket, (receive, opened) = link_that_names_its_version([100.0], judge)
    opened()
    receive([b"X" + bytes((REFUSED_PROMISE,)) + b"promised"])
    assert (judged, socket.sent) == ([b"promised"], [b"H7", b"H7"] if kept else [b"H7"])
    assert link.trouble() == ("", ""), "it is not refused, or its host ends"


def link_that_names_its_version(
    now: list[float], judge: Any = None
) -> tuple[PeerLink, Socket, list[Any]]:
    socket, made = Socket(), []

    def connect(receive: Any, opened: Any) -> Any:
        made.extend((receive, opened))
        return socket

    peer = Peer(2, "h2", "10.0.0.2", 2380)
    link = PeerLink(
        connect, peer, lambda version: [b"H%d" % version], lambda *given: None, lambda: b"{}",
        lambda: now[0], judge,
    )
    return link, socket, made


def test_a_hello_names_the_lowest_version_and_the_range_follows_once_it_is_accepted() -> None:
    now = [100.0]
    link, socket, (_, opened) = link_that_names_its_version(now)
    opened()
    link.look()
    assert socket.sent == [b"H7"], (
        "a host of version 7 that refuses this one would end its connection for more"
    )
    now[0] += 1.0
    link.look()
    link.look()
    assert socket.sent == [b"H7", b"W" + SPOKEN.pack(frames.LOWEST, frames.HIGHEST)]
    now[0] += 10.0
    link.look()
    assert socket.sent[2:] == socket.sent[1:2], "a peer that let the hello wait has dropped the first one"


def test_a_version_that_is_refused_is_followed_by_the_next_one() -> None:
    now = [100.0]
    link, socket, (receive, opened) = link_that_names_its_version(now)
    opened()
    for _ in range(6):
        receive([b"X" + bytes((REFUSED_VERSION,)) + b"incompatible version"])
    link.look()
    assert socket.sent == [b"H7", b"H8", b"H9", b"H10", b"H11", b"H12"], "all were refused: it waits"
    now[0] += RETRY_S
    link.look()
    assert socket.sent[6:] == [b"H7"]


def test_a_cluster_that_grew_takes_no_hello_of_before_and_sends_none() -> None:
    link, socket, (_, opened) = link_that_names_its_version([100.0])
    link.begin_with(frames.GROWTH_SINCE)
    opened()
    assert socket.sent == [b"H10"]

    async def scenario() -> None:
        asked = peers(2, free_ports(2), [])
        asked._receive([b"p", b"H" + HELLO.pack(7, 7, 1, 1, 0)])
        asked.refuse_below(frames.GROWTH_SINCE)
        asked._receive([b"p", b"R"])
        assert b"p" in asked._accepted, "this member has said that it knows growth"
        asked._receive([b"q", b"H" + HELLO.pack(9, 7, 1, 1, 0)])
        assert b"q" not in asked._accepted
        asked._receive([b"q", b"H" + HELLO.pack(10, 7, 1, 1, 0)])
        assert b"q" in asked._accepted
        assert asked.linked() == {1: 10}
        asked._gone(b"p")
        asked._gone(b"q")
        assert asked.linked() == {}, "whatever it spoke: what it runs now is not known"
        asked.close()

    asyncio.run(scenario())


def test_the_version_spoken_with_a_peer_is_the_highest_of_both() -> None:
    async def scenario() -> None:
        asked = peers(2, free_ports(2), [])
        for version, said, spoken in ((7, None, 7), (7, (7, 8), 8), (8, (8, 13), 12)):
            asked._receive([b"p", b"H" + HELLO.pack(version, 7, 1, 1, 0)])
            if said is not None:
                asked._receive([b"p", b"W" + SPOKEN.pack(*said)])
            assert asked.versions[1] == spoken
        asked._receive([b"q", b"H" + HELLO.pack(13, 7, 1, 1, 0)])
        assert b"q" not in asked._accepted, "nobody here speaks it"
        asked.close()

    asyncio.run(scenario())


def test_a_link_to_where_another_member_is_ends_until_its_own_is_there(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood for ever: its frames were dropped at the other member, and nothing told of trouble."""
    monkeypatch.setattr(peer_link, "ELSEWHERE_S", 0.05)

    async def scenario() -> None:
        shared, own, third = free_ports(3)
        came: list[tuple[int, int, bytes]] = []
        refused: list[str] = []
        with capture_logs() as logged:
            asker = peers(1, [own, shared, third], [], refused=refused)
            wrong = peers(3, [own, shared, third], came, at=shared)
            await until(lambda: refused)
            assert "to field mismatch (got 2 want 3)" in asker.links[2].trouble()[0]
            for _ in range(4):
                assert not asker.send(2, b"R", b"for member 2")
                asker.look()
                await asyncio.sleep(0.1)
        assert len(refused) > 1, "it dials again"
        assert (came, wrong.linked()) == ([], {})
        assert [line["event"] for line in logged].count("refused a peer") == 1
        wrong.close()
        right = peers(2, [own, shared, third], came)
        await until(lambda: not asker.look() and asker.send(2, b"R", b"for member 2"))
        await until(lambda: came)
        assert came[0] == (1, ord("R"), b"for member 2")
        await until(lambda: not asker.links[2].trouble()[0])
        asker.close()
        right.close()

    asyncio.run(scenario())


def test_a_link_to_where_another_member_is_goes_where_the_members_say_then() -> None:
    async def scenario() -> None:
        own, second, third = free_ports(3)
        came: list[tuple[int, int, bytes]] = []
        refused: list[str] = []
        asker = peers(1, [own, third, third], [], refused=refused)
        right, other = (peers(n, [own, second, third], came) for n in (2, 3))
        with capture_logs():
            await until(lambda: refused and asker.links[3].send(b"R", b"for member 3"))
        cast(Any, asker)._roster.members[2] = Peer(2, "h2", "127.0.0.1", second)
        asker.follow()
        await until(lambda: asker.send(2, b"R", b"for member 2"))
        await until(lambda: (1, ord("R"), b"for member 2") in came)
        assert asker.links[3].losses == 0, "the link that was right"
        for each in (asker, right, other):
            each.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("older", ["asker", "asked"])
def test_a_link_with_a_host_of_before_stands(older: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That names nobody, and passes over who is named."""

    async def scenario() -> None:
        ports = free_ports(2)
        came: list[tuple[int, int, bytes]] = []
        refused: list[str] = []
        asker, asked = peers(1, ports, [], refused=refused), peers(2, ports, came)
        if older == "asker":
            hello = asker._hello
            monkeypatch.setattr(asker.links[2], "_hello", lambda version: hello(2, version)[-1:])
        else:
            monkeypatch.setattr(peers_of_node.meant, "mismatch", lambda parts, own: "")
        await until(lambda: asker.send(2, b"R", b"x") and came)
        for _ in range(5):
            asker.look()
            await asyncio.sleep(0.05)
        assert (refused, asker.links[2].losses, [*asked.linked()]) == ([], 0, [1])
        asker.close()
        asked.close()

    asyncio.run(scenario())


def test_a_member_whose_address_changes_keeps_its_link_until_it_goes() -> None:
    async def scenario() -> None:
        own, before, after = free_ports(3)
        came: list[tuple[int, int, bytes]] = []
        refused: list[str] = []
        asker, asked = peers(1, [own, before], [], refused=refused), peers(2, [own, before], came)
        await until(lambda: asker.send(2, b"R", b"x") and came)
        link = asker.links[2]
        cast(Any, asker)._roster.members[2] = Peer(2, "h2", "127.0.0.1", after)
        for _ in range(5):
            asker.follow()
            asker.look()
            await asyncio.sleep(0.02)
        assert asker.links[2] is link
        assert link.trouble() == ("", "")
        asked.close()
        await until(lambda: link.trouble()[0])
        asker.follow()
        asked = peers(2, [own, after], came)
        came.clear()
        await until(lambda: asker.send(2, b"R", b"y") and came)
        assert refused == []
        asker.close()
        asked.close()

    asyncio.run(scenario())


def test_what_was_counted_for_a_member_goes_on_where_it_has_moved_and_once_it_has_left() -> None:
    """A scraper takes a counter that falls for one that began anew, and all of it for new."""
    async def scenario() -> None:
        own, before, after = free_ports(3)
        came: list[tuple[int, int, bytes]] = []
        asker, asked = peers(1, [own, before], []), peers(2, [own, before], came)
        await until(lambda: asker.send(2, b"R", b"x") and came)
        link = asker.links[2]
        asked.close()
        await until(lambda: link.trouble()[0])
        link.look()
        members = cast(Any, asker)._roster.members
        members[2] = Peer(2, "h2", "127.0.0.1", after)
        asker.follow()
        moved = asker.links[2]
        assert moved is not link
        counted = link.sent_bytes, link.failures, link.losses
        assert all((counted[0], counted[2]))
        assert (moved.sent_bytes, moved.failures, moved.losses) == counted
        del members[2]
        asker.follow()
        assert (asker.links, asker.sent_bytes) == ({}, counted[0])
        asker.close()

    asyncio.run(scenario())
