"""Which tests one process runs where files run side by side (``--dist loadfile``): those of a file, or of a
folder whose files share clusters that take turns. What takes long begins first: in the end no process is
left with it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sized

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

TOGETHER = ("tests/interop/library/",)  # three clusters in turn: each file by itself would start them anew
# half a minute or more, by CI's "seconds of modules"; of the others, those of many tests begin first
LONG = (
    *TOGETHER,
    "tests/interop/console/chromium/test_browser.py",
    "tests/interop/rows/test_rows.py",
    "tests/interop/ctl/test_etcdctl_on_muster.py",
    "tests/faults/kills/test_silence.py",
    "tests/cluster/packages/test_distributions.py",
    "tests/cluster/members/test_members.py",
    "tests/faults/upgrades/test_rolling.py",
    "tests/interop/clients/test_go.py",
    "tests/cluster/testing/test_cluster.py",
    "tests/faults/fuzz/test_fuzz.py",
    "tests/cluster/members/test_forced.py",
    "tests/faults/disks/test_space.py",
    "tests/interop/auth/test_tls.py",
    "tests/cluster/serving/test_shards.py",
    "tests/cluster/serving/test_bench.py",
    "tests/faults/sharded/test_shards_feed.py",
    "tests/faults/disks/test_snapshots.py",
    "tests/cluster/serving/test_births.py",
    "tests/cluster/growth/test_growth.py",
    "tests/cluster/moves/test_page.py",
    "tests/cluster/serving/test_peer_port.py",
    "tests/interop/ctl/test_ctl_outputs.py",
    "tests/faults/kills/test_readme.py",
    "tests/cluster/starting/test_demo.py",
    "tests/cluster/moves/test_steps.py",
    "tests/interop/clients/test_patroni.py",
    "tests/cluster/moves/test_hosts.py",
    "tests/cluster/moves/test_moves.py",
    "tests/faults/sharded/test_left_alone.py",
    "tests/cluster/starting/test_run_pages.py",
    "tests/faults/sharded/test_shards_at_random.py",
    "tests/cluster/starting/test_misconfigurations.py",
    "tests/cluster/serving/test_cuts.py",
    "tests/faults/upgrades/test_rolling_ctl.py",
    "tests/faults/disks/test_million.py",
    "tests/faults/kills/test_kills.py",
    "tests/interop/clients/test_go_recipes.py",
    "tests/faults/kills/test_faults_at_random.py",
    "tests/faults/disks/test_kept.py",
    "tests/faults/sharded/test_shards_kills.py",
)


def register(config: pytest.Config) -> None:
    """Have xdist ask here, where it is."""
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Lanes())


def lane(test: str) -> str:
    """What is given to one process: a folder, or a file. ``test``: its node ID."""
    return next((folder for folder in TOGETHER if test.startswith(folder)), test.partition("::")[0])


class Lanes:
    """The plugin."""

    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> LoadFileScheduling | None:
        """Files, and folders that are TOGETHER."""
        return _Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def longest(lanes: Mapping[str, Sized]) -> str:
    """Which of these lanes begins, each with its tests."""
    return max(lanes, key=lambda one: (-LONG.index(one) if one in LONG else -len(LONG), len(lanes[one])))


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        self.workqueue.move_to_end(longest(self.workqueue), last=False)
        super()._assign_work_unit(node)
