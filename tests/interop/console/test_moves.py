"""Keys that really move, by the cluster view."""

from __future__ import annotations

from pathlib import Path

import muster_client as m

from tests.interop.console.conftest import one_muster
from tests.interop.console.visitor import Visitor, visit


def test_keys_move_to_a_shard_that_was_born(tmp_path: Path) -> None:
    async def steps(user: Visitor) -> None:
        for n in range(50):
            last = await user.client.put(f"/moved/{n:02}", "x")
        await user.open("/cluster")
        await user.fill("Enable growth", {"Type the word": "growth"})
        await user.fill("Add a shard", {})
        await user.until(lambda: user.in_row("Shard 2", "Leader"))
        await user.fill("Move keys", {"Keys": "/moved/", "To": 2})
        await user.until(lambda: user.in_row("/moved/", "Shard 2"))
        await user.sees("Shard 0, Shard 1 → Shard 2")
        await user.sees("Who owned them before")
        assert await user.client.count(m.prefix("/moved/")) == 50
        then = await user.client.get("/moved/00", revision=last.revision)
        assert then is not None, "old revisions stay where they were"

    with one_muster(tmp_path) as address:
        visit(address, steps)
