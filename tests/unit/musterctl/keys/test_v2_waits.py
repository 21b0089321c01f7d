"""Waits of version 2 that a host ends without an event."""

from __future__ import annotations

import pytest

from tests.unit.v2.host import BROKEN, Said, host
from tools.musterctl.v2.client import Client
from tools.musterctl.v2.exchange import Connections
from tools.musterctl.v2.keys import Keys

EVENT = {"action": "delete", "node": {"key": "/a", "modifiedIndex": 8, "createdIndex": 3}}


@pytest.mark.parametrize(("index", "ended", "first", "again"), [
    (7, (200, ""), 0, 8),
    (7, (200, BROKEN), 0, 8),
    (7, (200, ""), 3, 3),
    (7, (503, ""), 0, 0),
    (0, (200, ""), 0, 0),  # it had not begun
])  # fmt: skip
def test_a_wait_goes_on_from_where_it_began(index: int, ended: Said, first: int, again: int) -> None:
    """It began anew, "from now on": what had happened meanwhile was lost."""
    answers = iter([ended, (200, EVENT)])
    with host(lambda asked: next(answers), index) as (url, seen):
        keys = Keys(Client([url, url], Connections(None), 10, 10))
        assert keys.wait("/a", first, True).action == "delete"
    assert [asked.line for asked in seen] == [
        f"GET /v2/keys/a?recursive=true&wait=true&waitIndex={since}" for since in (first, again)]
