"""Requests out of the queue while what they ask about is looked at ahead of their turn. They count among
those that wait (I23), and are lost with the term."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


class Aside(Generic[K, A]):
    """Of one leader. ``K``: what names a request; ``A``: what was asked, as it is evaluated afterwards."""

    def __init__(self) -> None:
        self._asked: dict[K, A] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, token: K) -> bool:
        return token in self._asked

    def put(self, token: K, asked: A) -> None:
        self._asked[token] = asked

    def back(self, token: K) -> A | None:
        """The look is over, or was given up: what was asked; None: no answer is due any more."""
        return self._asked.pop(token, None)

    def forget(self, gone: Callable[[K], bool]) -> None:
        if self._asked:
            self._asked = {token: asked for token, asked in self._asked.items() if not gone(token)}

    def drain(self) -> list[K]:
        tokens = list(self._asked)
        self._asked.clear()
        return tokens
