"""Links between neighbouring versions: what version 7 said is understood, and it is said nothing that it does
not know."""

from __future__ import annotations

import pytest

from cluster.wire import frames
from cluster.wire.link import AskingEnd, Broken, Listening, spoken_by
from cluster.wire.messages import HELLO_BODY, SPOKEN, Method, Status, answer, decode_requests, frame
from node.links.fronts import FrontLink, Fronts


def old_hello() -> bytes:
    """Frame 1 of version 7, byte by byte: number, then the record: rid, method, an empty field, length,
    body."""
    body = (
        (7).to_bytes(2, "little") + b"".join(n.to_bytes(8, "little") for n in (1, 2, 3)) + b"\x02\x00\x01\x00"
    )
    return (1).to_bytes(8, "little") + bytes(8) + b"\x00" + bytes(4) + len(body).to_bytes(4, "little") + body


class Node:
    """The answering end."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.fronts = Fronts(1, lambda link, records: None, self._greet, lambda link: None, (2, 1))

    def _greet(self, link: FrontLink) -> None:
        link.answer(0, Status.STATE, b"state")

    def hears(self, data: bytes) -> FrontLink | None:
        self.fronts.frame(b"front", data, self._send, b"")
        link = self.fronts.links.get(b"front")
        if link is not None and link.pending:
            link.flush()
        return link

    def _send(self, parts: list[bytes]) -> bool:
        self.sent.append(parts[-1])
        return True


def test_a_front_of_version_7_is_answered_as_it_expects() -> None:
    node = Node()
    link = node.hears(old_hello())
    assert link is not None
    assert link.version == 7
    assert node.sent == [frame(1, [answer(0, Status.STATE, b"state")])], "nothing that it does not know"


def test_a_node_of_version_7_finds_the_hello_that_it_knows() -> None:
    end = AskingEnd()
    _, ((rid, method, spoken, body),) = decode_requests(end.frame([end.hello(1, 2, 3, (2, 1))]))
    assert (rid, method, HELLO_BODY.unpack(body)) == (0, Method.HELLO, (7, 1, 2, 3, 2, 1))
    assert spoken_by(7, spoken) == (frames.LOWEST, frames.HIGHEST)
    assert end.opened(frame(1, [answer(0, Status.STATE, b"state")]), 5.0) == [(0, Status.STATE, b"state")]
    assert (end.version, end.heard_at) == (7, 5.0)


def test_two_of_this_version_speak_the_highest_one() -> None:
    node, end = Node(), AskingEnd()
    link = node.hears(end.frame([end.hello(1, 2, 3, (2, 1))]))
    assert link is not None
    (said,) = node.sent
    assert end.opened(said, 1.0) == [(0, Status.STATE, b"state")]
    assert (link.version, end.version) == (frames.HIGHEST, frames.HIGHEST)


def test_a_newer_one_speaks_what_both_know() -> None:
    end = AskingEnd()
    end.opened(frame(1, [answer(0, Status.VERSIONS, SPOKEN.pack(8, 12))]), 1.0)
    assert end.version == frames.HIGHEST


def test_who_speaks_no_common_version_is_refused_and_told_which_there_are() -> None:
    node = Node()
    body = HELLO_BODY.pack(12, 1, 2, 3, 2, 1)
    hello = (
        (1).to_bytes(8, "little")
        + bytes(8)
        + b"\x00"
        + (14 << 16 | 13).to_bytes(4, "little")
        + len(body).to_bytes(4, "little")
    )
    assert node.hears(hello + body) is None
    assert b"this node speaks 7 to 12" in node.sent[0]


@pytest.mark.parametrize("data", [b"", b"short", frame(2, []), frame(1, [b"half a record"])])
def test_a_frame_that_is_not_the_next_one_ends_the_link(data: bytes) -> None:
    with pytest.raises(Broken):
        AskingEnd().opened(data, 0.0)


def test_a_frame_that_was_not_taken_leaves_its_number() -> None:
    end = AskingEnd(b"F")
    end.frame([])
    end.not_sent()
    assert end.frame([b"x"])[:9] == b"F" + (1).to_bytes(8, "little")


def test_silence_is_since_the_last_frame() -> None:
    end = AskingEnd(now=10.0)
    assert not end.silent(10.5, 1.0)
    end.opened(frame(1, []), 11.0)
    assert not end.silent(12.0, 1.0)
    assert end.silent(12.1, 1.0)


def test_time_for_which_its_own_loop_was_held_is_nobodys_silence() -> None:
    listening, end = Listening(0.25), AskingEnd(now=10.0)
    assert listening.look(10.0) == 10.0
    heard_till = listening.look(12.0)  # a turn of two seconds: what came meanwhile lies in the socket
    assert not end.silent(heard_till, 1.0)
    end.excuse(listening.held_s, 12.0)
    end.opened(frame(1, []), 12.01)
    assert not end.silent(listening.look(12.05), 1.0)
    assert listening.held_s == 0


@pytest.mark.parametrize("late_s", [2.0, 0.5, 0.0])
def test_a_loop_that_is_held_again_and_again_finds_who_says_nothing(late_s: float) -> None:
    listening, end, now, looks = Listening(0.25), AskingEnd(now=0.0), 0.0, 0
    while not end.silent(listening.look(now), 1.0):
        end.excuse(listening.held_s, now)
        now += 0.05 + late_s
        looks += 1
    assert looks <= (1.0 / 0.25 + 2 if late_s else 1.0 / 0.05 + 2)


def test_nobody_is_excused_into_the_future() -> None:
    end = AskingEnd(now=10.0)
    end.excuse(5.0, 11.0)
    assert end.heard_at == 11.0


def test_more_of_a_frame_that_has_not_all_come_is_no_silence() -> None:
    """A frame of many large answers travels longer than an election timeout."""
    end = AskingEnd(now=10.0)
    for second in range(1, 6):
        assert not end.silent(10.0 + 1.1 * second, 1.0, second << 20)
    assert not end.silent(16.5, 1.0, 5 << 20)
    assert end.silent(16.6, 1.0, 5 << 20)
    assert end.silent(16.6, 1.0, 0)


def test_a_side_that_stops_within_a_frame_is_silent_from_there_on() -> None:
    """It was found one limit later: only the first look behind the limit noted how much had come."""
    end = AskingEnd(now=10.0)
    assert [end.silent(10.0 + tenth / 10, 1.0, 1 << 20) for tenth in (1, 5, 11, 12)] == [
        False, False, False, True]
    end.opened(frame(1, []), 12.0)
    assert not end.silent(11.5, 1.0, 2 << 20), "what came later was heard"
    assert end.heard_at == 12.0
