"""Which requests of a front still have somebody who waits for them."""

from __future__ import annotations

from cluster.wire.messages import HELLO_BODY, PROTOCOL_VERSION, Method, frame, request
from node.links.fronts import FrontLink, Fronts


def test_a_request_is_given_up_once_it_came_longer_ago_than_a_front_waits() -> None:
    links: list[FrontLink] = []
    fronts = Fronts(1, lambda link, records: None, links.append, lambda link: None, (2, 1), limit_s=7.0)
    hello = request(0, Method.HELLO, 0, HELLO_BODY.pack(PROTOCOL_VERSION, 1, 1, 9, 2, 1))
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
    hello = request(0, Method.HELLO, 0, HELLO_BODY.pack(PROTOCOL_VERSION, 1, 1, 9, 2, 1))
    fronts.frame(b"f", frame(1, [hello]), lambda parts: True, b"")
    (link,) = links
    for second in range(9):
        records = [request(1 + second, Method.PUT, 7000, b""), request(1, Method.CREDIT, 0, bytes(8))]
        fronts.frame(b"f", frame(2 + second, records), lambda parts: True, b"")
        fronts.sweep(float(second))
    assert [link.awaits(rid) for rid in (1, 2, 3)] == [False, False, True]
