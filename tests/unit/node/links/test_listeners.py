"""A node's peer ports at several addresses act as one."""

from __future__ import annotations

from collections.abc import Callable

from cluster.machine import FrameSocket, Receive
from node.links.listeners import Listeners


class Port:
    """One of them: links are what the test says."""

    def __init__(self, endpoint: str, receive: Receive, gone: Callable[[bytes], None]) -> None:
        self.endpoint, self.receive, self.gone = endpoint, receive, gone
        self.dropped, self.trouble = 0, ""
        self.did: list[tuple[str, object]] = []

    def send(self, parts: list[bytes]) -> bool:
        self.did.append(("send", parts))
        return True

    def stands(self) -> bool:
        return True

    def hint(self) -> str:
        return ""

    def trust(self, identity: bytes) -> None:
        self.did.append(("trust", identity))

    def drop(self, identity: bytes, reason: str) -> None:
        self.did.append(("drop", identity))

    def address(self, identity: bytes) -> str:
        return self.endpoint

    def close(self) -> None:
        self.did.append(("close", b""))


def made() -> tuple[Listeners, list[Port], list[list[bytes]], list[bytes]]:
    ports: list[Port] = []
    came: list[list[bytes]] = []
    went: list[bytes] = []

    def listen(endpoint: str, receive: Receive, gone: Callable[[bytes], None]) -> FrameSocket:
        ports.append(Port(endpoint, receive, gone))
        return ports[-1]

    return Listeners(listen, ["tcp://a:1", "tcp://b:1"], came.append, went.append), ports, came, went


def test_an_answer_goes_where_the_question_came_from() -> None:
    listeners, (first, second), came, _ = made()
    second.receive([b"x", b"hello"])
    first.receive([b"y", b"hello"])
    assert came == [[b"x", b"hello"], [b"y", b"hello"]]
    assert listeners.send([b"x", b"1"])
    assert listeners.send([b"y", b"2"])
    listeners.trust(b"x")
    listeners.drop(b"y", "why")
    assert second.did == [("send", [b"x", b"1"]), ("trust", b"x")]
    assert first.did == [("send", [b"y", b"2"]), ("drop", b"y")]
    assert listeners.address(b"x") == "tcp://b:1"
    assert not listeners.send([b"z", b"nobody"])
    assert listeners.dropped == 1


def test_a_link_that_came_again_by_another_address_is_not_gone() -> None:
    listeners, (first, second), _, went = made()
    first.receive([b"x", b"hello"])
    second.receive([b"x", b"hello"])
    first.gone(b"x")
    assert went == []
    assert listeners.send([b"x", b"1"])
    second.gone(b"x")
    assert went == [b"x"]
    assert not listeners.send([b"x", b"2"])
    listeners.close()
    assert [port.did[-1][0] for port in (first, second)] == ["close", "close"]
