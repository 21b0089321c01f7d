"""Which tests one process runs where files run side by side (``--dist loadfile``): those of a file, or of a
folder whose files share clusters that take turns."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

TOGETHER = ("tests/interop/library/",)  # three clusters in turn: each file by itself would start them anew


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


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)
