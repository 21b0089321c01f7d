"""Who asks is settled by what is committed here, not by what happens to be applied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.features.auth.principal import SAID
from cluster.features.auth.state import AuthState
from cluster.wire.messages import Method
from node.serving.admission import Admission


class _Node:
    """Auth is committed here, and applied once somebody is about to look."""

    def __init__(self) -> None:
        self.guard = SimpleNamespace(state=AuthState())
        self.taken: list[int] = []
        self.admission = Admission(self)  # type: ignore[arg-type]

    def catch_up(self) -> None:
        self.guard.state = SimpleNamespace(enabled=True)

    def take_requests(self, link: Any, requests: list[tuple[int, int, int, bytes]]) -> None:
        self.taken += [method for _, method, _, _ in requests]

    def ask(self, *methods: Method) -> None:
        link: Any = SimpleNamespace(watches=True)
        self.admission.requests(link, [(rid, method, 0, b"") for rid, method in enumerate(methods, 1)])


def test_a_read_without_a_name_is_judged_by_what_is_committed() -> None:
    node = _Node()
    node.ask(Method.PUT, Method.RANGE)
    assert node.taken == [Method.PUT | SAID, Method.RANGE | SAID]


def test_writes_alone_wait_for_nothing_to_be_applied() -> None:
    node = _Node()
    node.ask(Method.PUT)
    assert node.taken == [Method.PUT]  # the leader judges them with what it has logged
