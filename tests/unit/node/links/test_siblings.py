"""A node's link to another shard's node: what is sent when, and that it is the right shard's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

import node.links.peers as peers_of_node
from cluster.members import meant
from cluster.settings import Common, Peer
from cluster.wire.frames import PeerKind
from cluster.wire.messages import STATE_BODY, Method, Status, answer, decode_requests, frame
from node.links import siblings
from node.links.fronts import FrontLink, Fronts, Send
from node.links.siblings import NodeLink, NodeLinks
from proxy.routing.links import Connector
from tests.cluster.nodes import free_ports
from tests.unit.node.links.test_peers import peers
from tools.muster.machine.real import RealMachine

FRONT = PeerKind.FRONT.byte


class Socket:
    """A connection that takes all once it stands."""

    def __init__(self, receive: Any) -> None:
        self.receive = receive
        self.connected = True
        self.closed = False
        self.sent: list[list[int]] = []  # the methods of each frame
        self.before: list[list[bytes]] = []  # the parts before each frame
        self.coming = 0  # bytes of a frame that has not all come

    def send(self, parts: list[bytes]) -> bool:
        if self.connected:
            self.before.append(parts[:-1])
            _, records = decode_requests(parts[-1].removeprefix(FRONT))
            self.sent.append([method for _, method, _, _ in records])
        return self.connected

    def stands(self) -> bool:
        return self.connected

    def unfinished(self) -> int:
        return self.coming

    def close(self) -> None:
        self.closed = True

    def says(self, shard: int) -> None:
        state = STATE_BODY.pack(shard, 2, 3, 4, 5, 6)
        self.receive([FRONT + frame(1, [answer(0, Status.STATE, state)])])

    def refuses(self, reason: bytes) -> None:
        self.receive([FRONT + frame(1, [answer(0, Status.REFUSED, reason)])])


class World:
    def __init__(self, election_timeout_ms: int = 1000) -> None:
        self.now = 100.0
        self.later: list[tuple[float, Any]] = []
        self.heard = 0
        self.sockets: list[Socket] = []
        common = Common(
            cluster_id=9, member_id=1, name="h1", shard_count=3, placement_depth=2, run_dir="/run",
            peers=tuple(Peer(m, f"h{m}", "h", 1000) for m in (1, 2)), election_timeout_ms=election_timeout_ms)
        loop = SimpleNamespace(time=lambda: self.now, call_later=self._call_later)
        machine: Any = SimpleNamespace(loop=loop, dial=self._dial, random_bytes=bytes)
        self.peers = {peer.member_id: peer for peer in common.peers}
        self.dialled: list[str] = []
        self.links = NodeLinks(machine, common, self._hears, self.peers.get)

    def _dial(self, endpoint: str, identity: bytes, receive: Any, **others: Any) -> Socket:
        self.dialled.append(endpoint)
        self.sockets.append(Socket(receive))
        return self.sockets[-1]

    def _call_later(self, delay_s: float, call: Any, *given: Any) -> None:
        self.later.append((self.now + delay_s, lambda: call(*given)))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for due in [each for each in self.later if each[0] <= self.now]:
            self.later.remove(due)
            due[1]()

    def _hears(self) -> None:
        self.heard += 1

    def link(self) -> tuple[NodeLink, Socket]:
        """A link to shard 1, with a request queued."""
        link = self.links.get(2, 1)
        link.request(Method.PREPARE, b"")
        self.links.flush()
        return link, self.sockets[-1]


def test_requests_wait_until_the_other_side_has_said_which_shard_it_is() -> None:
    world = World()
    link, socket = world.link()
    link.request(Method.QUERY, b"")
    world.links.flush()
    assert socket.sent == [[Method.HELLO]]
    assert not world.links.dirty, "nothing to look for until it says its state"
    socket.says(1)
    assert world.heard == 1
    world.links.flush()
    assert socket.sent == [[Method.HELLO], [Method.PREPARE, Method.QUERY]]
    link.request(Method.QUERY, b"")
    world.links.flush()
    assert socket.sent[2:] == [[Method.QUERY]]


def test_a_link_on_which_a_large_grant_comes_is_not_silent() -> None:
    world = World()
    link, socket = world.link()
    socket.says(1)
    for _ in range(12):
        world.now += 0.4
        socket.coming += 1 << 20
        world.links.sweep()
    assert link.alive
    for _ in range(6):
        world.now += 0.4
        world.links.sweep()
    assert not link.alive


def test_a_connection_that_is_not_made_yet_is_looked_for() -> None:
    world = World()
    link = world.links.get(2, 1)
    world.sockets[0].connected = False
    world.links.flush()
    assert link in world.links.dirty
    world.sockets[0].connected = True
    world.links.flush()
    assert world.sockets[0].sent == [[Method.HELLO]]
    assert not world.links.dirty


def test_a_node_is_in_reach_from_its_state_until_its_link_ends() -> None:
    world = World()
    assert not world.links.reaches(2, 1)
    world.links.flush()
    world.sockets[0].says(1)
    assert world.links.reaches(2, 1)
    world.sockets[0].connected = False
    world.links.sweep()
    assert not world.links.reaches(2, 1)
    assert not world.links.reaches(3, 1)  # no member


def test_another_shards_node_is_sent_nothing_and_told_of_once() -> None:
    world = World()
    with capture_logs() as logs:
        for _ in range(3):
            link, socket = world.link()
            socket.says(0)
            world.links.flush()
            assert socket.sent == [[Method.HELLO]]
            assert socket.closed
            assert not link.alive
            assert not link.up
    assert [line["event"] for line in logs] == ["another shard's node answers"]
    assert (logs[0]["shard"], logs[0]["answers"], logs[0]["peer"]) == (1, 0, "2")
    assert len(world.sockets) == 3, "each time it is dialled anew"


def test_a_link_names_the_member_that_it_is_for_with_its_hello() -> None:
    world = World()
    _, socket = world.link()
    socket.says(1)
    world.links.flush()
    assert socket.before == [[meant.encode(2)], []]
    world.links.get(1, 1)
    world.links.flush()
    assert world.sockets[-1].before == [[]], "at an own socket nobody else is"


@pytest.mark.parametrize(("election_timeout_ms", "pause_s"), [(500, 0.5), (1000, 1.0), (20_000, 1.0)])
def test_where_another_member_answers_nothing_is_sent_and_a_pause_is_made(
    election_timeout_ms: int, pause_s: float
) -> None:
    """The other side ended it first, as a stranger without a hello, where election timeouts are long."""
    world = World(election_timeout_ms)
    with capture_logs() as logs:
        for _ in range(2):
            link, socket = world.link()
            socket.refuses(b"to field mismatch (got 2 want 3)")
            for _ in range(4):
                world.wait(pause_s / 5)
                world.links.sweep()
                assert world.links.get(2, 1) is link, "no sooner"
                world.links.flush()
            assert socket.sent == [[Method.HELLO]]
            world.wait(pause_s / 4)
            world.links.sweep()
            assert (socket.closed, link.alive) == (True, False)
    assert [(line["event"], line["reason"]) for line in logs] == [
        ("another member's node answers", "to field mismatch (got 2 want 3)")]
    link, socket = world.link()
    socket.refuses(b"cluster ID mismatch")
    assert not link.alive


def test_what_is_for_a_member_that_is_not_there_is_not_kept() -> None:
    """It waited for the link's end, all of it in memory: 10,000 records of any size."""
    world = World()
    link, socket = world.link()
    link.request(Method.PREPARE, b"before the answer")
    socket.refuses(b"to field mismatch (got 2 want 3)")
    world.links.flush()
    for _ in range(3):
        assert link._out == []
        link.request(Method.PREPARE, bytes(1000))
        world.links.flush()
    assert (socket.sent, link.alive) == ([[Method.HELLO]], True)


@pytest.mark.parametrize("connected", [True, False])
def test_what_waits_for_a_state_is_bounded(connected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "_MAX_WAITING", 3)
    monkeypatch.setattr(siblings, "_HWM", 5)
    world = World()
    link = world.links.get(2, 1)
    world.sockets[0].connected = connected
    for _ in range(5 if connected else 3):
        link.request(Method.QUERY, b"")
        world.links.flush()
    assert link.alive
    link.request(Method.QUERY, b"")
    world.links.flush()
    assert not link.alive


def test_a_host_is_dialled_where_it_is_now() -> None:
    """A member may tell where it is before the table does."""
    world = World()
    link, _ = world.link()
    world.peers[2] = Peer(2, "h2", "elsewhere", 1000)
    world.peers[3] = Peer(3, "h3", "h", 1000)
    world.links.get(3, 1)
    del world.peers[3]
    world.links.follow()
    assert not link.alive, "nothing was heard of it where it was"
    assert world.links.find(2, 1) is not link
    assert world.links.find(3, 1) is None, "nobody knows it any more"
    assert [endpoint.split("/")[-1] for endpoint in world.dialled] == ["h:1000", "h:1000", "elsewhere:1000"]


@pytest.mark.parametrize("older", [False, True], ids=["now", "of before"])
def test_real_links_of_nodes_and_fronts_stand_at_their_own_member_alone(
    older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``older``: the host of before that is dialled passes over who is meant."""
    if older:
        monkeypatch.setattr(peers_of_node.meant, "mismatch", lambda parts, own: "")

    async def scenario() -> None:
        own, there = free_ports(2)

        def greet(link: FrontLink) -> None:
            link.answer(0, Status.STATE, STATE_BODY.pack(0, 3, 1, 1, 1, 1))
            link.flush()

        fronts = Fronts(7, lambda *_: None, greet, lambda link: None, (1, 2))

        def on_front(identity: bytes, data: bytes, send: Send) -> bool:
            fronts.frame(identity, data, send, FRONT)
            return identity in fronts.links

        third = peers(3, [own, 0, there], [])
        third._on_front = on_front
        hosts = tuple(Peer(n, f"h{n}", "127.0.0.1", there) for n in (2, 3))
        common = Common(7, 1, "h1", 1, 2, hosts, "/nowhere")
        machine = RealMachine(asyncio.get_running_loop(), common)
        links = NodeLinks(machine, common, lambda: None, {peer.member_id: peer for peer in hosts}.get)
        right, stale = links.get(3, 0), links.get(2, 0)
        states: list[int] = []
        downs: list[str] = []
        receiver: Any = SimpleNamespace(
            link_up=lambda link: states.append(link.member_id), link_state=lambda link: None,
            link_down=lambda link, reason: downs.append(reason),
            link_answers=lambda link, answers: [
                link.state(body) if status == Status.STATE else link.refused(body)
                for _, status, body in answers])
        connector = Connector(machine, common)
        of_front = [connector(receiver, 0, n) for n in (2, 3)]
        with capture_logs() as logs:
            async with asyncio.timeout(60):
                while not (right.up and 3 in states and (stale.up if older else downs and logs)):
                    links.flush()
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
        if older:
            assert (stale.up, sorted(states), downs) == (True, [2, 3], [])
        else:
            reason = "to field mismatch (got 2 want 3)"
            assert (stale.alive, stale.up, states, downs) == (True, False, [3], ["astray: " + reason])
            assert "another member's node answers" in [line["event"] for line in logs]
        assert right.alive
        links.close()
        for link in of_front:
            if link is not None:
                link.close("the end")
        third.close()

    asyncio.run(scenario())
