"""Which requests of a front still have somebody who waits for them."""

from __future__ import annotations

from cluster.wire.frames import GROWTH_SINCE, LOWEST
from cluster.wire.messages import HELLO_BODY, Method, frame, request
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
