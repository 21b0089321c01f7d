"""What a stranger at the peer port hears and leaves behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from cluster.members import meant
from cluster.members.origin import Origin
from cluster.repeats import Repeats
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.frames import LOWEST
from cluster.wire.link import AskingEnd
from cluster.wire.messages import HELLO_BODY, SEQUENCE, Method, request
from node.links.fronts import Fronts
from node.links.peers import HELLO, Peers
from node.links.unheard import MOST_HELD, PATIENCE_S
from tests.unit.proxy.fakes import ManualLoop

CLUSTER = 0xC1057E12
OWN, OTHER = Origin(0xA, 2, 1), Origin(0xB, 2, 1)


class Socket:
    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []
        self.receive: Any = None
        self.trouble = ""
        self.closed = False
        self.trusted: list[bytes] = []
        self.dropped: list[bytes] = []

    def send(self, parts: list[bytes]) -> bool:
        self.sent.append(parts)
        return True

    def trust(self, identity: bytes) -> None:
        self.trusted.append(identity)

    def drop(self, identity: bytes, reason: str) -> None:
        self.dropped.append(identity)

    def stands(self) -> bool:
        return not self.trouble

    def unfinished(self) -> int:
        return 0

    def hint(self) -> str:
        return ""

    def close(self) -> None:
        self.closed = True

    def address(self, identity: bytes) -> str:
        return "10.0.0.9:5"


class Port(Socket):
    """The peer port of member 1, which knows member 2, and what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.fronts: list[bytes] = []
        self.loop = ManualLoop()
        self.dialled: list[Socket] = []
        self.members = {2: Peer(2, "h2", "127.0.0.1", 2380, ())}
        self.told: list[tuple[int, bytes]] = []
        machine: Any = SimpleNamespace(
            loop=self.loop, listen=self._listen, dial=self._dial, random_bytes=bytes
        )
        roster: Any = SimpleNamespace(
            reachable=lambda: dict(self.members), is_removed=lambda member_id: member_id == 3,
            told=lambda *told: self.told.append(told), described=lambda: b"{}",
        )  # fmt: skip
        self.remembered: list[int] = []
        self.promised, self.heard = b"", 7
        accepting: Any = SimpleNamespace(
            accept=lambda member_id, said: said == self.heard and not self.remembered.append(member_id),
            heard=lambda member_id: self.heard)
        common = Common(CLUSTER, 1, "h1", OWN.shards, OWN.depth, (), "/nowhere", origin="a")
        settings = NodeSettings(common, 0, "/nowhere", "127.0.0.1", 2380, incarnation=1)
        self.peers = Peers(
            machine, settings, roster=roster, incarnations=accepting,
            on_frame=lambda member_id, kind, data: self.frames.append(data), on_front=self._front,
            on_refused=lambda *args: None,
            promises=SimpleNamespace(standing=list, broken=lambda member_id, parts: self.promised),
        )  # fmt: skip

    def _front(self, identity: bytes, frame: bytes, send: Any) -> bool:
        self.fronts.append(identity)
        return False

    def _listen(self, endpoint: str, receive: Any, **options: Any) -> Socket:
        self.receive = receive
        return self

    def _dial(self, endpoint: str, identity: bytes, receive: Any, **options: Any) -> Socket:
        made = Socket()
        made.receive = receive
        self.dialled.append(made)
        return made

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.loop.now += 1.0
            self.peers.look()


@pytest.fixture
def port() -> Port:
    return Port()


def hello(cluster_id: int, member_id: int = 2) -> bytes:
    return b"H" + HELLO.pack(LOWEST, cluster_id, member_id, 7, 0)


def refused(port: Port) -> list[bytes]:
    return [identity for identity, frame in port.sent if frame[:1] == b"X"]


def test_a_wrong_hello_of_a_peer_learns_nothing_of_the_cluster(port: Port) -> None:
    """It was told the right cluster ID, after which it was believed."""
    with capture_logs():
        port.receive([b"stranger", hello(1)])
    (told,) = port.sent
    assert told[1][2:] == b"cluster ID mismatch"
    assert b"%x" % CLUSTER not in told[1]


def test_strangers_fill_neither_the_log_nor_memory(port: Port) -> None:
    with capture_logs() as logged:
        for member_id in range(3, 10_000):
            port.receive([b"stranger %d" % member_id, hello(CLUSTER, member_id)])
        assert len(refused(port)) == 9_997 - MOST_HELD
        port.seconds(int(PATIENCE_S))
    assert len(refused(port)) == 9_997
    assert len(logged) <= 64


def test_a_member_that_this_node_has_not_heard_of_waits_until_it_has_said_where_it_is(port: Port) -> None:
    """It was refused: a host that was down while others added it, and made it their leader, heard nothing any
    more."""
    port.receive([b"new", hello(CLUSTER, 4)])
    port.receive([b"new", b"Rentries"])
    assert (port.sent, port.trusted) == ([[b"new", b"J"]], [])
    port.seconds(1)
    assert port.sent == [[b"new", b"J"]] * 2, "the first question may be lost"
    port.receive([b"stranger", b"J{}"])
    port.receive([b"new", b"J{}"])
    assert port.told == [(4, b"{}")], "whoever says hello is heard, and of himself"
    port.members[4] = Peer(4, "h4", "127.0.0.1", 2480, ())
    port.peers.follow()
    assert (port.trusted, port.frames, len(port.sent)) == ([b"new"], [b"entries"], 2)
    assert len(port.dialled) == 2, "and it is dialled, to be answered"


def test_a_member_that_is_to_move_is_dialled_where_it_is_until_it_goes(port: Port) -> None:
    """Its old link ended with the change: two hosts of three lost their leader until one was restarted."""
    (old,) = port.dialled
    port.members[2] = Peer(2, "renamed", "127.0.0.1", 2380, ())
    port.peers.follow()
    assert (port.dialled, port.peers.links[2].peer.name) == ([old], "renamed")
    port.members[2] = Peer(2, "h2", "127.0.0.1", 2480, ())
    port.peers.follow()
    assert (port.dialled, old.closed) == ([old], False)
    old.trouble = "Connection refused"
    port.peers.follow()
    assert (len(port.dialled), old.closed) == (2, True)
    del port.members[2]
    port.peers.follow()
    assert port.dialled[1].closed, "a member that went"


def test_a_member_that_says_hello_and_is_not_reached_is_asked_where_it_is(port: Port) -> None:
    """It has moved while this host was down."""
    (moved,) = port.dialled
    port.receive([b"peer", hello(CLUSTER)])
    port.seconds(1)
    assert port.sent == []
    moved.trouble = "Connection refused"
    port.seconds(1)
    assert port.sent == [[b"peer", b"J"]]
    port.receive([b"peer", b"J{}"])
    assert port.told == [(2, b"{}")]


def test_who_does_not_say_where_he_is_is_refused_in_the_end(port: Port) -> None:
    with capture_logs():
        port.receive([b"new", hello(CLUSTER, 4)])
        port.receive([b"gone", hello(CLUSTER, 3)])
        port.receive([b"two", hello(CLUSTER, 5)])
        port.receive([b"two", hello(CLUSTER, 6)])
        assert refused(port) == [b"gone", b"two"], "removed; not who it was before"
        port.seconds(int(PATIENCE_S))
    assert port.sent[-1] == [b"new", b"X\x04member 4 is not in this cluster"]
    assert refused(port) == [b"gone", b"two", b"new"]
    assert port.trusted == []


def test_a_member_whose_data_began_otherwise_is_refused_by_name_and_forgotten(port: Port) -> None:
    """It was elected, and acknowledged writes at revisions that others had given away already."""
    with capture_logs() as logged:
        port.receive([b"peer", b"Ra vote"])
        port.receive([b"peer", OTHER.encode(), hello(CLUSTER)])
        port.receive([b"peer", b"Ra vote"])
    (_, refusal, _), (line,) = port.sent, logged
    assert refusal[1][:2] == b"X\x07"
    for said in (refusal[1][2:].decode(), line["reason"]):
        assert f"h2 was {OTHER}, h1 was {OWN}" in said
    assert "same backup file" in line["hint"]
    assert (port.frames, port.trusted, port.remembered) == ([], [], [])
    port.receive([b"peer", OWN.encode(), hello(CLUSTER)])  # it was restored once more
    port.receive([b"peer", b"Ra vote"])
    assert (port.frames, port.trusted, port.remembered) == ([b"a vote"] * 2, [b"peer"], [2])


def test_a_member_whose_hello_says_less_than_it_acknowledged_is_told_what_that_was(port: Port) -> None:
    port.promised = b"promised"
    said = [b"peer", OWN.encode(), b"its standing", hello(CLUSTER)]
    port.receive(said)
    assert port.sent == [[b"peer", b"X\x08promised"]]
    port.heard = 8
    with capture_logs():
        port.receive(said)
    assert b"without the data that it had" in port.sent[-1][1], "it is another directory"
    assert (port.trusted, port.remembered) == ([], [])
    port.promised, port.heard = b"", 7
    port.receive(said)
    assert (port.trusted, port.remembered) == ([b"peer"], [2]), "it was read late, and it said hello again"


def test_a_hello_that_waited_is_judged_by_what_its_sender_said_before_it(port: Port) -> None:
    """An old copy of a data directory was taken, by a host that had not heard of its member yet."""
    said = [OWN.encode(), b"its standing", hello(CLUSTER, 4)]
    judged: list[list[bytes]] = []
    port.peers._promises = cast(Any, SimpleNamespace(
        standing=list, broken=lambda member_id, parts: judged.append(parts) or b"promised"))
    port.receive([b"new", *said])
    port.members[4] = Peer(4, "h4", "127.0.0.1", 2480, ())
    port.peers.follow()
    assert judged == [said[:-1]]
    assert (port.sent[-1], port.trusted) == ([b"new", b"X\x08promised"], [])


@pytest.mark.parametrize("parts", [[], [b"Ono origin"], [b"something else", OWN.encode()]])
def test_a_member_that_does_not_say_how_its_data_began_goes_with_any(port: Port, parts: list[bytes]) -> None:
    port.receive([b"peer", *parts, hello(CLUSTER)])
    assert port.trusted == [b"peer"]


def test_a_hello_that_is_meant_for_another_member_is_refused(port: Port) -> None:
    """It was taken: what its sender had for the other one was dropped here for ever, without a word."""
    with capture_logs() as logged:
        port.receive([b"peer", OWN.encode(), meant.encode(5), hello(CLUSTER)])
    assert port.sent == [[b"peer", b"X\x09to field mismatch (got 5 want 1)"]]
    assert (port.trusted, port.remembered, port.peers.linked()) == ([], [], {})
    assert (logged[0]["peer"], "peer URLs" in logged[0]["hint"]) == ("h2", True)
    port.receive([b"peer", OWN.encode(), meant.encode(1), hello(CLUSTER)])
    assert (port.trusted, port.remembered) == ([b"peer"], [2])


def test_an_unknown_and_a_removed_member_hear_what_they_are_though_another_was_meant(port: Port) -> None:
    with capture_logs():
        port.receive([b"gone", meant.encode(5), hello(CLUSTER, 3)])
        port.receive([b"new", meant.encode(5), hello(CLUSTER, 4)])
        assert [frame[:2] for _, frame in port.sent] == [b"X\x06", b"J"]
        port.members[4] = Peer(4, "h4", "127.0.0.1", 2480, ())
        port.peers.follow()
    assert port.sent[-1][1][:2] == b"X\x09"


def test_hosts_that_were_removed_are_told_that_whatever_their_data_began_with(port: Port) -> None:
    with capture_logs():
        port.receive([b"gone", OTHER.encode(), hello(CLUSTER, 3)])
    assert port.sent[0][1][:2] == b"X\x06"


def test_a_node_of_another_origin_gets_no_feed(port: Port) -> None:
    with capture_logs() as logged:
        for _ in range(3):
            port.receive([b"node", OTHER.encode(), b"Fhello"])
    assert len(logged) == 1
    assert b"the hosts began with different data" in port.sent[0][1]
    assert port.fronts == []
    port.receive([b"node", OWN.encode(), b"Fhello"])
    port.receive([b"front", b"Fhello"])
    assert port.fronts == [b"node", b"front"]


def test_a_front_that_means_another_member_is_refused(port: Port) -> None:
    with capture_logs() as logged:
        for _ in range(3):
            port.receive([b"front", OWN.encode(), meant.encode(2), b"Fhello"])
    assert len(logged) == 1
    assert port.sent[0][1].endswith(b"to field mismatch (got 2 want 1)")
    assert (port.fronts, port.trusted) == ([], [])
    port.receive([b"front", OWN.encode(), meant.encode(1), b"Fhello"])
    assert port.fronts == [b"front"]


@pytest.mark.parametrize(("cluster", "judged"), [(CLUSTER, []), (CLUSTER + 1, [b"front"])])
def test_a_front_of_another_cluster_hears_of_that_and_not_of_members(
    port: Port, cluster: int, judged: list[bytes]
) -> None:
    """``judged``: by the part that knows what a hello says (``Fronts``)."""
    end = AskingEnd(b"F")
    with capture_logs() as logged:
        port.receive([b"front", meant.encode(2), end.frame([end.hello(cluster, 3, 5, (2, 1))])])
    assert (port.fronts, len(port.sent), len(logged)) == (judged, not judged, not judged)


def test_an_empty_frame_ends_the_link_of_a_peer_and_nothing_else(port: Port) -> None:
    with capture_logs() as logged:
        for _ in range(100):
            port.receive([b"peer", hello(CLUSTER)])
            port.receive([b"peer", b""])
    assert port.dropped == [b"peer"] * 100
    assert len(logged) == 1
    assert logged[0]["peer"] == "h2"
    port.receive([b"peer", b"Rlost"])
    assert port.sent == [[b"peer", b"?"]], "it has to say hello again"
    assert port.peers.received_failures == {2: 100}
    port.receive([b"peer", hello(CLUSTER)])
    assert port.frames == [b"lost"]


@pytest.mark.parametrize("odd", [b"", b"\0", b"zzz", b"?"])
def test_a_frame_of_no_kind_ends_the_link_of_a_stranger(port: Port, odd: bytes) -> None:
    port.receive([b"stranger", odd])
    assert (port.dropped, port.sent, port.trusted) == ([b"stranger"], [], [])


def test_only_a_good_hello_ends_the_time_of_a_stranger(port: Port) -> None:
    with capture_logs():
        port.receive([b"stranger", hello(1)])
        port.receive([b"stranger", hello(CLUSTER, 9)])
        port.receive([b"stranger", hello(CLUSTER) + b"x"])
        port.receive([b"stranger", b"Rdata"])
        port.receive([b"stranger", b"Fdata"])
    assert port.trusted == []
    port.receive([b"stranger", hello(CLUSTER)])
    assert port.trusted == [b"stranger"]


def test_a_refusal_names_who_is_refused_and_what_to_look_at(port: Port) -> None:
    with capture_logs() as logged:
        port.receive([b"other", hello(1, 99)])
        port.receive([b"list", hello(1, 2)])
    assert [(line.get("peer"), line["member"], line["address"]) for line in logged] == [
        (None, "63", "10.0.0.9:5"),
        ("h2", "2", "10.0.0.9:5"),
    ]
    assert port.peers.received_failures == {2: 1}, "of members alone: strangers have any ID"
    assert "--initial-cluster-token" in logged[0]["hint"]
    assert "its --initial-cluster names other members" in logged[1]["hint"]


def test_a_wrong_hello_of_a_front_learns_nothing_of_the_cluster() -> None:
    sent: list[list[bytes]] = []

    def send(parts: list[bytes]) -> bool:
        sent.append(parts)
        return True

    fronts = Fronts(CLUSTER, lambda *args: None, lambda link: None, lambda link: None, (1, 2))
    body = HELLO_BODY.pack(LOWEST, 1, 0, 5, 0, 0)
    with capture_logs() as logged:
        for _ in range(100):
            fronts.frame(b"stranger", SEQUENCE.pack(1) + request(0, Method.HELLO, 0, body), send, b"F")
    assert all(parts[1].endswith(b"cluster ID mismatch") for parts in sent)
    assert len(logged) == 1


def test_broken_frames_of_fronts_are_logged_now_and_then() -> None:
    """Each time, whoever reaches the peer port would fill a log."""
    fronts = Fronts(CLUSTER, lambda *args: None, lambda link: None, lambda link: None, (1, 2))
    hello = request(0, Method.HELLO, 0, HELLO_BODY.pack(LOWEST, CLUSTER, 0, 5, 0, 0))
    with capture_logs() as logged:
        for number in range(100):
            front, send = b"%d" % number, lambda parts: True
            fronts.frame(front, b"odd", send, b"F")
            fronts.frame(front, SEQUENCE.pack(1) + hello, send, b"F")
            fronts.frame(front, SEQUENCE.pack(7), send, b"F")
    assert [line["event"] for line in logged] == [
        "dropping a front that sent a broken frame", "dropping a front whose frames are out of sequence",
    ]
    assert not fronts.links


def test_a_cause_is_news_once_in_its_interval_and_few_are_told_apart() -> None:
    repeats = Repeats(60.0, causes=3)
    assert [repeats.news(cause, 0.0) for cause in ("a", "a", "b", "c", "d")] == [
        True, False, True, True, False,
    ]
    assert repeats.news("d", 61.0)
    assert repeats.news("a", 61.0)
