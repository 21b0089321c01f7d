"""How a node takes what fronts ask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.messages import Method
from node.fronts import FrontLink
from node.server import Node
from node.storage import StorageCorruption


def node_whose_reads_raise(error: Exception, dropped: list[bytes]) -> Any:
    def request(*args: Any) -> None:
        raise error

    return SimpleNamespace(
        _submit=None, _requests_in_tick=0, _node_request=lambda *args: False, serve=SimpleNamespace(request=request),
        fronts=SimpleNamespace(drop=dropped.append), catch_up=lambda: None)


def ask(node: Any) -> None:
    Node._requests(node, FrontLink(b"front", lambda parts: True, b"", 1), [(1, Method.RANGE, 1000, b"")])


def test_a_read_that_finds_the_disk_damaged_ends_the_node_instead_of_the_front_that_asked() -> None:
    """The front would ask again, and again, and every time the writes on its link would have an unknown fate."""
    dropped: list[bytes] = []
    with pytest.raises(StorageCorruption, match="sst"):
        ask(node_whose_reads_raise(StorageCorruption("000012.sst: checksum mismatch"), dropped))
    assert dropped == []


def test_a_request_that_cannot_be_understood_ends_its_front_only() -> None:
    dropped: list[bytes] = []
    with capture_logs():
        ask(node_whose_reads_raise(KeyError("no such method"), dropped))
    assert dropped == [b"front"]


def test_whatever_is_asked_has_the_replica_caught_up_first_and_writes_have_not() -> None:
    seen: list[str] = []
    node: Any = SimpleNamespace(
        _submit=lambda *args: seen.append("write"), _requests_in_tick=0, _node_request=lambda *args: False,
        serve=SimpleNamespace(request=lambda *args: seen.append("read")), catch_up=lambda: seen.append("caught up"),
        watches=SimpleNamespace(subscribe=lambda *args: seen.append("watch")),
        confirmations=SimpleNamespace(ask=lambda *args: seen.append("question")))
    link = FrontLink(b"front", lambda parts: True, b"", 1)
    Node._requests(node, link, [(rid, method, 1000, b"") for rid, method in enumerate(
        (Method.PUT, Method.RANGE, Method.READ_INDEX, Method.SUBSCRIBE, Method.STATUS))])
    assert seen == ["write", "caught up", "read", "caught up", "question", "caught up", "watch", "caught up", "read"]
