"""Clients that call a front's methods directly, without a connection: they ask, leave, and stop reading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from proxy.grpc.registry import Registry
from tests.unit.proxy.random.calls import Call, Calls
from tests.unit.proxy.random.world import World

STEPS = 300
_GONE_S = 0.1  # two sweeps: nothing waits any more for a client that has gone


class Run(World):
    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(seed, monkeypatch, Registry())
        self.register()
        self.calls = Calls(self.random, self.net, self.handler, self.users)
        self.unanswered: list[Call] = []  # nodes answered everything, and these did not end
        self.kept_for_nobody: list[Any] = []  # requests
        for weight, event in (
            (40, self.calls.begin), (6, self._leave), (4, self._say), (3, self._read_or_not),
        ):
            self.events.add(weight, event)

    def go(self, steps: int = STEPS) -> None:
        """What happens, and then rest: all nodes are well and answer. What has an end of its own comes to it;
        then all clients go. Or all go before that, while nodes say nothing."""
        self.happen(steps)
        if self.stops:
            self.net.context.stop()
            self.net.router.close()
        elif self.random.random() < 0.5:
            self.calls.leave(self.calls.every)
            self.net.pass_time(_GONE_S)
            self.kept_for_nobody = [
                one for one in self._waiting() if one.client is not None and one.client.closed]
        self.nodes.mend()
        self.calls.leave(self.calls.endless())
        self.look()
        self.unanswered = [call for call in self.calls.every if not call.closed]
        self.calls.leave(self.calls.every)
        self.look()

    def _waiting(self) -> Iterator[Any]:
        """All requests, wherever they wait."""
        router = self.net.router
        for route in router.routes.values():
            yield from (*route.queue, *route.reads)
            for link in route.links.values():
                yield from link.pending.values()
        yield from router.read_index.unanswered()
        yield from (entry.read for entry in router.recent._behind if entry.read is not None)

    def expire(self) -> None:
        self.calls.expire()

    # -- events

    def _leave(self) -> None:
        if (call := self.calls.any_open()) is not None:
            call.leave()

    def _say(self) -> None:
        if (call := self.calls.any_open()) is not None:
            self.calls.say(call)

    def _read_or_not(self) -> None:
        if (call := self.calls.any_open()) is not None:
            self.calls.read_or_not(call)
