"""Which requests of a front still have somebody who waits for them, and what a link sends."""

from __future__ import annotations

from cluster.wire.frames import GROWTH_SINCE, LOWEST
from cluster.wire.messages import HEAD, HELLO_BODY, Method, Status, decode_answers, frame, request
from node.links.fronts import FrontLink, Fronts


def test_a_request_is_given_up_once_it_came_longer_ago_than_a_front_waits() -> None:
    links: list[FrontLink] = []
    fronts = Fronts(1, lambda link, records: None, links.append, lambda link: None, (2, 1), limit_s=7.0)
    hello = request(0, Method.HELLO, 0, HELLO_BODY.pack(LOWEST, 1, 1, 9, 2, 1))
    fronts.frame(b"f", frame(1, [hello]), lambda parts: True, b"")
    (link,) = links
    overdue = []
    for second in range(12):
        if second < 4:
            fronts.frame(
                b"f", frame(2 + second, [request(1 + second, Method.PUT, 7000, b"")]), lambda parts: True, b""
            )
        fronts.sweep(float(second))
        overdue.append([rid for rid in (1, 2, 3, 4) if not link.awaits(rid)])
    assert overdue == [[]] * 7 + [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    fronts.drop(b"f")
    assert not link.awaits(5)


def test_what_is_said_of_an_older_request_makes_no_newer_one_look_awaited() -> None:
    """Credit for a long answer may be the last record of each frame."""
    links: list[FrontLink] = []
    fronts = Fronts(1, lambda link, records: None, links.append, lambda link: None, (2, 1), limit_s=7.0)
    hello = request(0, Method.HELLO, 0, HELLO_BODY.pack(LOWEST, 1, 1, 9, 2, 1))
    fronts.frame(b"f", frame(1, [hello]), lambda parts: True, b"")
    (link,) = links
    for second in range(9):
        records = [request(1 + second, Method.PUT, 7000, b""), request(1, Method.CREDIT, 0, bytes(8))]
        fronts.frame(b"f", frame(2 + second, records), lambda parts: True, b"")
        fronts.sweep(float(second))
    assert [link.awaits(rid) for rid in (1, 2, 3)] == [False, False, True]


def test_fronts_of_before_growth_are_ended_and_told_why() -> None:
    gone: list[FrontLink] = []
    sent: list[list[bytes]] = []

    def send(parts: list[bytes]) -> bool:
        sent.append(parts)
        return True

    fronts = Fronts(1, lambda link, records: None, lambda link: None, gone.append, (2, 1))
    body = HELLO_BODY.pack(LOWEST, 1, 1, 9, 2, 1)
    old = frame(1, [request(0, Method.HELLO, 9 << 16 | 7, body)])
    new = frame(1, [request(0, Method.HELLO, GROWTH_SINCE << 16 | 7, body)])
    fronts.frame(b"old", old, send, b"")
    fronts.frame(b"new", new, send, b"")
    fronts.refuse_below(GROWTH_SINCE)
    assert [link.identity for link in gone] == [b"old"]
    fronts.frame(b"old", old, send, b"")
    assert list(fronts.links) == [b"new"]
    assert b"protocol version 9, this node speaks 10 to 12: the sender is older" in sent[-1][1]


def test_many_large_answers_of_a_tick_leave_in_several_frames() -> None:
    """One frame of them took longer than an election timeout to travel, in which the node seemed dead."""
    sent: list[bytes] = []

    def send(parts: list[bytes]) -> bool:
        sent.append(parts[1])
        return True

    link = FrontLink(b"f", send, b"", 9)
    for rid in range(1, 40):
        link.ok(rid, rid, 2, bytes(300_000))
        link.answer(rid, Status.ERROR, b"")
        link.pieces(rid, Status.PARTIAL, [bytes(200_000), bytes(200_000)])
    link.answer(40, Status.OK, bytes(3_000_000))
    link.answer(0, Status.STATE, b"state")
    assert link.flush()
    link.answer(41, Status.OK, bytes(3_000_000))
    assert link.flush()
    decoded = [decode_answers(data) for data in sent]
    assert [sequence for sequence, _ in decoded] == list(range(1, len(sent) + 1))
    assert 20 <= len(sent) <= 40
    assert sorted(map(len, sent))[-3] < 2_000_000, "but for single records"
    answers = [(rid, status, len(body)) for _, answers in decoded for rid, status, body in answers]
    assert answers == [
        *(answer for rid in range(1, 40) for answer in (
            (rid, Status.OK, HEAD.size + 300_000), (rid, Status.ERROR, 0), (rid, Status.PARTIAL, 400_000))),
        (40, Status.OK, 3_000_000), (0, Status.STATE, 5), (41, Status.OK, 3_000_000)]
    assert link.answered == 39 * 3 + 3
    link._send = lambda parts: False
    for rid in range(50, 60):
        link.ok(rid, rid, 2, bytes(300_000))
    assert not link.flush()
    assert not link.alive


def test_large_answers_of_a_tick_may_end_with_empty_pieces() -> None:
    """A list of nothing is one in pieces: beside large values it ended the node."""
    sent: list[bytes] = []

    def send(parts: list[bytes]) -> bool:
        sent.append(parts[1])
        return True

    link = FrontLink(b"f", send, b"", 9)
    for rid in range(1, 5):
        link.ok(rid, rid, 2, bytes(1_100_000))
        link.pieces(rid, Status.OK, [b"head", b"", b"", b"x", b"", b""])
        link.pieces(rid, Status.PARTIAL, [b"", b""])
    assert link.flush()
    answers = [(rid, status, len(body)) for data in sent for rid, status, body in decode_answers(data)[1]]
    assert answers == [answer for rid in range(1, 5) for answer in (
        (rid, Status.OK, HEAD.size + 1_100_000), (rid, Status.OK, 5), (rid, Status.PARTIAL, 0))]
    assert (len(sent), link.answered) == (5, 12)
