"""Operations of several calls, one after the other: pages of a list, an update that is tried again."""

from __future__ import annotations

from collections.abc import Callable

from bench.client import Client, RpcError
from bench.client.connection import Callback


class Stepwise:
    """A caller whose operation takes several calls on one connection.

    Each operation has a turn, a number; answers for earlier turns, of cancelled operations, are dropped.
    """

    def __init__(self, client: Client, place: int) -> None:
        self._client = client
        self._place = place % len(client.connections)
        self._turn = 0
        self._call = 0

    def begin(self) -> int:
        """The next operation's turn."""
        self._turn += 1
        return self._turn

    def cancel(self, stream_id: int) -> None:
        self._turn += 1
        self._client.connections[self._place].cancel(self._call)

    def step(
        self, turn: int, path: str, body: bytes, callback: Callback, then: Callable[[bytes], None]
    ) -> None:
        """Make a call; ``then`` takes its answer, ``callback`` an error."""

        def done(error: RpcError | None, answer: bytes) -> None:
            if turn != self._turn:
                return
            if error is not None:
                callback(error, b"")
            else:
                then(answer)

        self._call = self._client.connections[self._place].call(path, body, done)
