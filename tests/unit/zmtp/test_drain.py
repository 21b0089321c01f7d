"""A flood of messages leaves the loop its turns, also where each is answered at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import zmq

from tools.muster.machine.zmtp.curve.sockets import LoopSocket


class Loop:
    """Turns by hand."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], None]] = deque()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def turn(self) -> None:
        for _ in range(len(self.ready)):
            self.ready.popleft()()


class Flooded:
    """A socket that always has another message."""

    type = zmq.ROUTER

    def __init__(self) -> None:
        self.taken = 0

    def getsockopt(self, option: int) -> int:
        return 0 if option == zmq.FD else zmq.POLLIN | zmq.POLLOUT

    def recv_multipart(self, flags: int) -> list[bytes]:
        self.taken += 1
        return [b"peer", b"message"]

    def send_multipart(self, parts: list[bytes], flags: int) -> None: ...


def test_a_receiver_that_answers_takes_no_more_of_a_turn() -> None:
    loop, flooded = Loop(), Flooded()
    sockets: list[LoopSocket] = []

    def answer(parts: list[bytes]) -> None:
        sockets[0].send(parts)

    sockets.append(LoopSocket(cast(Any, loop), cast(Any, flooded), answer))
    counts = []
    for _ in range(6):
        before = flooded.taken
        loop.turn()
        counts.append(flooded.taken - before)
    assert counts == [counts[0]] * 6, "each turn takes as much as the first"
