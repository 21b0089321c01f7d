"""Warnings of refused requests, in etcd's words. Any client can cause them: one of a kind a minute."""

from __future__ import annotations

from collections import defaultdict
from time import monotonic

import structlog

from cluster.repeats import Repeats

log = structlog.get_logger("front")

_MOST = 256  # characters of a value that a client has chosen


class Warnings:
    """By their events: many of one hide none of another."""

    def __init__(self) -> None:
        self._repeats = defaultdict[str, Repeats](Repeats)

    def tell(self, event: str, **facts: str | int) -> None:
        told = {name: fact[:_MOST] if isinstance(fact, str) else fact for name, fact in facts.items()}
        if self._repeats[event].news(tuple(told.values()), monotonic()):
            log.warning(event, **told)
