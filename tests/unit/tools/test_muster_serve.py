"""What a host's processes are told."""

from __future__ import annotations

import json

import pytest

from cluster.settings import Peer
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import resolve
from tools.muster.host import serve
from tools.muster.host.identity.bootstrap import Identity

MIB = 1 << 20


def node_settings(shards: int, *args: str) -> list[dict[str, int]]:
    """Of each node of a host with so many shards."""
    built = config.with_shards(
        config.build(resolve(SERVER_FLAGS, [f"--shards={shards}", "--fronts=1", *args], {})), shards
    )
    identity = Identity(
        1, 2, 3, shards, 2, (Peer(2, "default", "localhost", 2380, ("http://localhost:2380",)),)
    )
    specs = serve.child_specs(built, identity, "/run")
    return [json.loads(spec.settings(3)[0]) for spec in specs if spec.kind == "node"]


@pytest.mark.parametrize(
    ("shards", "args", "write_buffer_bytes", "block_cache_bytes", "range_cache_bytes"),
    [
        (1, (), 32 * MIB, 64 * MIB, 32 * MIB),
        (2, (), 16 * MIB, 32 * MIB, 16 * MIB),
        (16, (), 8 * MIB, 4 * MIB, 2 * MIB),  # the least of the first two
        (
            2, ("--write-buffer-bytes=134217728", "--block-cache-bytes=268435456", "--range-cache-bytes=0"),
            64 * MIB, 128 * MIB, 0,
        ),
        (1, ("--write-buffer-bytes=0", "--block-cache-bytes=0"), 8 * MIB, 4 * MIB, 32 * MIB),
    ],
)
def test_a_hosts_memory_is_shared_among_its_shards(
    shards: int, args: tuple[str, ...], write_buffer_bytes: int, block_cache_bytes: int,
    range_cache_bytes: int,
) -> None:
    nodes = node_settings(shards, *args)
    assert len(nodes) == shards
    for node in nodes:
        assert node["write_buffer_bytes"] == write_buffer_bytes
        assert node["block_cache_bytes"] == block_cache_bytes
        assert node["range_cache_bytes"] == range_cache_bytes
