"""A demo enables growth in a new cluster, and in no other."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tools.muster import demo


@pytest.mark.parametrize(("revisions", "enables"), [(["1", "7", "9"], 3), (["2", "2", "2"], 0)])
def test_a_cluster_that_was_new_stays_so_while_its_hosts_say_their_versions(
    revisions: list[str], enables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that wrote at once left the demo's cluster without growth."""
    asked: list[str] = []

    def answer(url: str, body: bytes) -> Any:
        asked.append(url)
        if url.endswith("/range"):
            return {"header": {"revision": revisions.pop(0)}}
        if len(revisions) > 0:
            raise OSError("not all hosts have said their version")
        return {}

    monkeypatch.setattr(demo, "_asked", answer)
    monkeypatch.setattr(demo, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda s: None))
    demo._enable_growth("http://host")
    assert sum(url.endswith("/enable-growth") for url in asked) == enables
