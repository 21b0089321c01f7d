"""What is left of a long lease outlives a host that is killed, and a keep-alive counts for more (H7)."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.local_cluster import until
from tests.cluster.one_host import Host, started

FLAGS = ("--experimental-enable-lease-checkpoint", "--lease-checkpoint-interval=1s")
TTL, LEFT = 1000, 994


def asked(host: Host, what: str, **request: int) -> int:
    """The TTL that the lease is said to have."""
    url = f"http://127.0.0.1:{host.port}/v3/lease/{what}"
    with urllib.request.urlopen(url, json.dumps({"ID": 7, **request}).encode(), timeout=10) as answer:
        found = json.load(answer)
    return int(found.get("result", found)["TTL"])


@pytest.mark.parametrize("shards", [1, 2])
def test_a_lease_does_not_begin_anew_with_its_host(tmp_path: Path, shards: int) -> None:
    with started(tmp_path / "data", 0, shards, *FLAGS) as host:
        until(host.serves)
        assert asked(host, "grant", TTL=TTL) == TTL
        until(lambda: asked(host, "timetolive") <= LEFT)
        port = host.port
    with started(tmp_path / "data", port, shards, *FLAGS) as host:
        until(host.serves)
        # an interval, an election, and what was rounded up
        assert asked(host, "timetolive") <= LEFT + 3
        assert asked(host, "keepalive") == TTL
    with started(tmp_path / "data", port, shards) as host:
        until(host.serves)
        assert asked(host, "timetolive") > LEFT + 3
