"""Requests that have left the queue while what they ask about is looked at ahead of their turn.

They are neither queued nor evaluated, and wait for nothing that is logged. Each is named by the way back to
whoever asks. It counts among those that wait (I23), and is lost with the term as those of the queue are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


class Aside(Generic[K, A]):
    """Of one leader. ``K``: what names a request; ``A``: what was asked, as it is evaluated afterwards."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: dict[K, A] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, token: K) -> bool:
        """Whether a look for this one is still wanted."""
        return token in self._asked

    def put(self, token: K, asked: A) -> None:
        """A look for it begins."""
        self._asked[token] = asked

    def back(self, token: K) -> A | None:
        """Its look is over, or was given up: what was asked; None: nobody waits for it any more."""
        return self._asked.pop(token, None)

    def forget(self, gone: Callable[[K], bool]) -> None:
        """Drop those whom nobody waits for."""
        if self._asked:
            self._asked = {token: asked for token, asked in self._asked.items() if not gone(token)}

    def drain(self) -> list[K]:
        """All of them: the term is lost, and nothing of them is logged."""
        tokens = list(self._asked)
        self._asked.clear()
        return tokens
