"""What a supervisor notes of its host, and how it follows the shards that are born, form and are dropped."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.tools.host.supervising.small_children import GOOD, Host
from tools.muster.host.supervising import supervisor
from tools.muster.host.supervising.supervisor import Supervisor


def test_a_level_to_which_the_data_has_grown_is_noted_and_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0='say(event="grown", level=1); say(event="grown", level=2);' + GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    assert host.grown == [1]
    (failed,) = host.log.all("cannot note in identity.json that the cluster's data has grown")
    assert failed == {"level": 2, "error": "no space left"}


@pytest.mark.parametrize("full", [0, 1])
def test_that_a_host_has_served_is_noted_once_and_a_full_disk_ends_nothing(tmp_path: Path, full: int) -> None:
    host = Host(tmp_path, node_0=GOOD, node_1=GOOD)
    host.full = full

    async def scenario() -> None:
        assert host.served == 0
        await host.until(lambda: host.supervisor.announced)

    assert host.run(scenario) == 0
    assert host.served == 1
    assert host.log.all("cannot note in identity.json that this host serves") == [
        {"error": "no space left"}] * full


def test_a_directory_that_cannot_be_made_is_tried_again_and_ends_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_AGAIN_S", 0.02)
    host = Host(tmp_path, node_0=GOOD, front_0=GOOD)
    host.full = 2

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.announced)
        host.supervisor._follow_shards({"born": {"3": [1]}, "forming": [], "dropped": []})
        await host.until(lambda: host.supervisor.runs_node(3))
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
    assert len(host.log.all("cannot make the directory of a shard that was born; trying again")) == 2


def test_several_directories_that_cannot_be_made_are_tried_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each had a try of its own planned for all of them: a full disk kept a CPU busy by the logged errors."""
    monkeypatch.setattr(supervisor, "_AGAIN_S", 0.0)
    tries: list[object] = []
    monkeypatch.setattr(Supervisor, "_try_again", lambda _, event: tries.append(event))
    host = Host(tmp_path, node_0=GOOD)
    host.full = 2
    event = {"born": {"3": [1], "4": [1]}, "forming": [], "dropped": []}

    async def scenario() -> None:
        host.supervisor._follow_shards(event)
        await asyncio.sleep(0.05)

    assert host.run(scenario) == 0
    assert (host.full, tries) == (0, [event])


def test_a_directory_that_cannot_be_made_for_long_is_tried_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try logs an error: 86,400 a day."""
    host = Host(tmp_path, node_0=GOOD)
    host.full = 8
    event = {"born": {"3": [1]}, "forming": [3], "dropped": []}
    pauses: list[float] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda pause_s, *_: pauses.append(pause_s))
        while host.full:
            host.supervisor._follow_shards(event)
        host.supervisor._follow_shards(event)
        host.full = 1
        host.supervisor._follow_shards({**event, "born": {"4": [1]}})
        monkeypatch.undo()

    assert host.run(scenario) == 0
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 1.0]


def test_a_drop_that_is_told_twice_is_one(tmp_path: Path) -> None:
    host = Host(tmp_path, node_0=GOOD, node_3=GOOD, front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.announced)
        for _ in range(2):
            host.supervisor._follow_shards({"born": {}, "forming": [], "dropped": [3]})
        await asyncio.gather(*host.supervisor._drops)

    assert host.run(scenario) == 0
    assert host.dropped == [3]


def test_a_shard_that_node_0_sees_born_again_is_dropped_again(tmp_path: Path) -> None:
    """A node 0 that dies comes back from its last flush: from before the shard's birth, if it was short."""
    host = Host(tmp_path, node_0=GOOD, node_3=GOOD, front_0=GOOD)
    told = host.supervisor._follow_shards

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.announced)
        told({"born": {}, "forming": [], "dropped": [3]})
        await asyncio.gather(*host.supervisor._drops)
        told({"born": {"3": [1]}, "forming": [3], "dropped": []})
        assert host.supervisor.runs_node(3)
        told({"born": {}, "forming": [], "dropped": [3]})
        await asyncio.gather(*host.supervisor._drops)
        assert not host.supervisor.runs_node(3)

    assert host.run(scenario) == 0
    assert host.dropped == [3, 3]


NEVER_READY = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); note("up"); signal.sigwait([signal.SIGTERM])
"""
DROPS = "say(event='shards', born={}, forming=[], dropped=[3]); "
FORMS = "say(event='shards', born={'3': [1]}, forming=%s, dropped=[]); "
UP = "while not os.path.exists(log) or 'node_3 up' not in open(log).read(): time.sleep(0.01)\n"


@pytest.mark.parametrize("first", [True, False], ids=["it is told to end", "all others are ready"])
def test_a_host_is_ready_without_the_node_of_a_shard_that_is_dropped(tmp_path: Path, first: bool) -> None:
    """Other hosts dropped the shard while this one was down: its node finds no leader any more.
    ``first``: what comes first."""
    gate = tmp_path / "gate"
    waits = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    if first:
        host = Host(tmp_path, node_0=f"{UP}{DROPS}until_term()", node_3=NEVER_READY + waits, front_0=GOOD)
    else:
        host = Host(tmp_path, node_0=f"{UP}say(event='ready')\n{waits}{DROPS}until_term()",
                    node_3=NEVER_READY, front_0=GOOD)

    async def scenario() -> None:
        node_0, node_3, front_0 = host.supervisor.children
        await host.until(lambda: node_0.ready and front_0.ready)
        assert not node_3.ready
        gate.touch()
        await host.until(lambda: host.dropped == [3])
        assert host.supervisor.announced
        assert host.supervisor.ready

    assert host.run(scenario) == 0


def test_a_host_is_ready_while_a_shard_forms(tmp_path: Path) -> None:
    """Nothing is asked of it before it serves: then its node counts."""
    serves, leads = tmp_path / "serves", tmp_path / "leads"
    waits = "while not os.path.exists({!r}): time.sleep(0.01)\n"
    node_0 = (f"{UP}{FORMS % [3]}say(event='ready')\n{waits.format(str(serves))}{FORMS % []}until_term()")
    node_3 = f"note('up')\n{waits.format(str(leads))}until_term()"
    host = Host(tmp_path, node_0=node_0, node_3=node_3, front_0=GOOD)

    async def scenario() -> None:
        await host.until(lambda: host.supervisor.announced)
        assert host.supervisor.ready
        serves.touch()
        await host.until(lambda: not host.supervisor.ready)
        leads.touch()
        await host.until(lambda: host.supervisor.ready)

    assert host.run(scenario) == 0
