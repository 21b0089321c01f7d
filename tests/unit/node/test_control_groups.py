"""What control groups allow: CPU time and memory of containers and services."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from node import control_groups
from node.upkeep.growth.host import HostLook
from tools.muster.config import settings
from tools.muster.config.kinds import AUTO
from tools.muster.host import pinning
from tools.muster.machine.process.memory import of_the_host

MACHINE = 64  # CPUs
Groups = Callable[..., Path]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Has a machine of 64 CPUs, and this process in group /a/b: ``groups(name, text of /, of /a, of /a/b)``.
    An empty text: no such file."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(MACHINE)))
    monkeypatch.setattr("os.cpu_count", lambda: MACHINE)
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/a/b\n")
    monkeypatch.setattr(control_groups, "OWN", own)
    monkeypatch.setattr(control_groups, "GROUPS", top := tmp_path / "groups")
    (top / "a" / "b").mkdir(parents=True)

    def has(name: str, *texts: str) -> Path:
        for folder, text in zip((top, top / "a", top / "a" / "b"), texts, strict=True):
            if text:
                (folder / name).write_text(f"{text}\n")
        return top

    return has


@pytest.mark.parametrize(("root", "above", "own", "cpus"), [
    ("", "", "", MACHINE), ("", "max 100000", "max 100000", MACHINE),
    ("200000 100000", "", "", 2),  # docker run --cpus 2, as the container sees it
    ("", "max 100000", "250000 100000", 3), ("", "50000 100000", "400000 100000", 1),
    ("", "", "9900000 100000", MACHINE), ("", "odd", "7 0", MACHINE)])
def test_auto_goes_by_the_cpu_time_that_a_container_may_use(
    groups: Groups, root: str, above: str, own: str, cpus: int
) -> None:
    """16 fronts, or 64 shards for ever, are no use on two CPUs."""
    groups("cpu.max", root, above, own)
    assert control_groups.usable_cpus() == cpus
    assert settings.shard_count(AUTO) == cpus
    assert settings.front_count(AUTO) == cpus // 4
    assert settings.front_count(AUTO, hosts=3) == cpus // 3 // 4
    assert settings.front_count(5) == settings.shard_count(5) == 5


def test_auto_pins_nothing_under_a_quota(groups: Groups) -> None:
    """Containers see the same CPUs: their first processes would share the first CPU."""
    assert pinning.assign("auto", 2) == [0, 1]
    groups("cpu.max", "", "", "200000 100000")
    assert pinning.assign("auto", 2) == [-1, -1]
    assert pinning.assign("3,4", 2) == pinning.assign("auto:3,4", 2) == [3, 4], "an operator's own choice"


def test_growth_goes_by_the_group_that_has_the_quota(groups: Groups, tmp_path: Path) -> None:
    """CPU time of its siblings counts as well."""
    look = HostLook(str(tmp_path))
    groups("cpu.max", "", "400000 100000", "600000 100000")
    groups("cpu.stat", "", "usage_usec 1000000\nuser_usec 7", "usage_usec 1000000")
    assert look.look(100.0).cpus == 4.0
    groups("cpu.stat", "", "usage_usec 3500000\nuser_usec 7", "usage_usec 1000000")
    look._before = (100.0, -1e6, 1.0)  # all CPUs were idle
    assert look.look(101.0)[:2] == (4.0, 1.5)


def test_memory_is_what_the_least_group_allows(groups: Groups) -> None:
    whole = of_the_host()
    groups("memory.max", "", "max", "max")
    assert of_the_host() == whole > 64 << 20
    groups("memory.max", "", str(32 << 20), str(48 << 20))
    assert of_the_host() == 32 << 20


def test_a_groups_name_has_any_bytes(groups: Groups) -> None:
    """A start ended at one that is no UTF-8, and so did each look of growth."""
    own = groups("cpu.max", "", "", "") / os.fsdecode(b"a\xff")
    own.mkdir()
    (own / "cpu.max").write_text("200000 100000\n")
    control_groups.OWN.write_bytes(b"0::/a\xff\n")
    assert control_groups.quota() == (2.0, own)


def test_without_control_groups_nothing_is_limited(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    groups("cpu.max", "100000 100000", "", "")
    for text in ("1:cpu:/\n", None):
        control_groups.OWN.write_text(text) if text else control_groups.OWN.unlink()
        assert control_groups.quota() is None
        assert control_groups.usable_cpus() == MACHINE
