"""A host that comes back without the data that it had (H10)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.local_cluster import local_cluster, until


def test_a_host_whose_disk_was_emptied_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3) as cluster:
        emptied = (cluster.leader() + 1) % 3
        cluster.ok("stop", str(emptied))
        shutil.rmtree(cluster.data_dir / f"host{emptied}")
        cluster.ok("start", str(emptied))
        log = cluster.data_dir / f"host{emptied}.log"
        said = until(lambda: "stopping this host" in (text := log.read_text(encoding="utf-8")) and text)
        assert "Remove the member and add it again as a new one" in said
        assert "crashed; starting it again" not in said
        until(lambda: not cluster.host(emptied)["up"])
        others = [h for i, h in enumerate(cluster.status()["hosts"]) if i != emptied]
        assert all(h["up"] and h["ready"] for h in others)
