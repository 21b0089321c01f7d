"""Who asks is settled by what is committed here, not by what happens to be applied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.features.auth.principal import SAID
from cluster.wire.messages import Method
from node.serving.guard import Guard


class _Node:
    """Auth is committed here, and applied once somebody is about to look."""

    def __init__(self) -> None:
        self.store = SimpleNamespace(feature_rows=lambda kind: [])
        self.taken: list[int] = []
        self.guard = Guard(self)  # type: ignore[arg-type]

    def catch_up(self) -> None:
        self.guard.state = SimpleNamespace(enabled=True)  # type: ignore[assignment]

    def take_requests(self, link: Any, requests: list[tuple[int, int, int, bytes]]) -> None:
        self.taken += [method for _, method, _, _ in requests]


def test_a_read_without_a_name_is_judged_by_what_is_committed() -> None:
    node = _Node()
    node.guard.requests(SimpleNamespace(watches=True), [(1, Method.PUT, 0, b""), (2, Method.RANGE, 0, b"")])  # type: ignore[arg-type]
    assert node.taken == [Method.PUT | SAID, Method.RANGE | SAID]


def test_writes_alone_wait_for_nothing_to_be_applied() -> None:
    node = _Node()
    node.guard.requests(SimpleNamespace(watches=True), [(1, Method.PUT, 0, b"")])  # type: ignore[arg-type]
    assert node.taken == [Method.PUT]  # the leader judges them with what it has logged
