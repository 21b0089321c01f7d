"""Systems that the bench starts for clients by TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import counters
from bench.compare import cli
from bench.compare.comparison import Plan, Told, compare
from bench.compare.matrix import PRESETS, Cell
from bench.load.spec import Spec
from bench.systems import systems
from bench.systems.systems import started
from tests.ports import free_base_port


@pytest.mark.parametrize("name", ["etcd+tls", "muster+tls"])
def test_puts_go_by_tls_and_the_servers_tell_of_themselves_in_clear(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "_free_block", lambda size: free_base_port(1, size))
    with started([name], data_dir=tmp_path, hosts=1) as (system,):
        assert [endpoint.partition(":")[0] for endpoint in system.endpoints] == ["https"]
        assert counters.sample(system.told)["syncs"] >= 0
        cell = Cell("put", "put", Spec("put", (), total=50, timeout_s=30.0))
        plan = Plan([cell], rounds=1, duration_s=60.0, warm_up_s=0.0, key_space=20, idle_s=0.1, hosts=1)
        result = asyncio.run(compare(plan, [system], Told()))
        (run,) = result["cells"][0]["runs"][name]
        assert (run.get("failed"), run["errors"], run["operations"]) == (None, {}, 50)
        assert run["settings"]["cacert"] == system.cacert
        assert run["server"]["rss_bytes"] > 0


def test_a_muster_by_tls_has_the_shards_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(name: str, program: Sequence[str], data_dir: Path, *, hosts: int,
              flags: Sequence[str]) -> systems.System:
        return systems.System(name, "", [], [], data_dir, flags=tuple(flags))

    monkeypatch.setattr(systems, "start_secure", start)
    asked = cli._Compared(shards=4).systems(PRESETS["tls"])
    assert asked == ["etcd+tls", "muster:4+tls"]
    with started(["muster:4+tls", "muster+tls"], data_dir=tmp_path) as (four, one):
        assert (four.name, four.shards, four.flags) == ("muster-4+tls", 4, ("--shards", "4"))
        assert (one.name, one.shards, one.flags) == ("muster+tls", 1, ())


def test_a_running_system_is_dialed_as_its_url_says(tmp_path: Path) -> None:
    found = systems.given("x", ["https://127.0.0.1:1", "http://127.0.0.1:2", "127.0.0.1:3"], tmp_path)
    assert found.endpoints == ["https://127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]


def test_a_system_by_tls_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither etcd"), started(["consul+tls"], data_dir=tmp_path):
        pass
