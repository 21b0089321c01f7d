"""Charts of real hosts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import muster_client as m
import pytest
from nicegui import ui

from tests.interop.console.conftest import Step, Visits, one_etcd, one_muster
from tests.interop.console.visitor import Visitor, console_of
from tools.console.store.charts import figures, series
from tools.console.store.charts.series import CHARTS


def test_a_host_is_recorded(server: str, run: Callable[[Step], None], directory: str) -> None:
    async def steps(client: m.Client) -> None:
        async with console_of(server) as console:
            recorder = console.sessions.recorder
            await recorder.look()
            for _ in range(20):
                await client.put(f"{directory}key", "")
            await recorder.look()
            assert not recorder.down
            (values,) = recorder.looks[-1].hosts.values()
            assert values["requests/Put"] > 0
            assert values["fsync/p99"] > 0
            assert values["memory"] > 2**20
            drawn = {chart.name: series.shared(recorder, chart) for chart in CHARTS}
            assert series.shared(recorder, CHARTS[0]) is drawn[CHARTS[0].name], "browsers share it"
            assert series.shared(recorder, CHARTS[0], "no such host") == {}
            assert {"requests", "fsync", "apply", "memory", "watches", "elections"} <= {
                name for name, lines in drawn.items() if lines}  # fmt: skip

    run(steps)


@pytest.mark.parametrize("kind", ["muster", "etcd"])
def test_each_chart_shows_what_really_happens(kind: str, tmp_path: Path) -> None:
    started = {"muster": one_muster, "etcd": one_etcd}[kind]

    async def main(address: str) -> None:
        async with console_of(address) as console, m.Client(address) as client, asyncio.timeout(100):
            recorder, seen = console.sessions.recorder, dict[str, float]()
            wanted = {"requests/Put", "errors/NotFound", "slow/UserAdd", "handling/p50", "handling/p99",
                      "fsync/p50", "fsync/p99", "apply/p50", "apply/p99", "events", "watches", "cpu",
                      "memory", "revision"}  # fmt: skip
            await recorder.look()
            async with client.watch("/watched") as watch:
                for at in itertools.count():
                    await client.put("/watched", "")
                    assert await watch.next() is not None
                    with pytest.raises(m.LeaseNotFound):
                        await client.put("/watched", "", lease=4711)
                    await client.auth.add_user(f"user-{at}", "a hash of it takes long")
                    await recorder.look()
                    (values,) = recorder.looks[-1].hosts.values()
                    seen |= {name: value for name, value in values.items() if value}
                    if wanted <= set(seen):
                        break
            assert seen["watches"] == 1
            assert seen["handling/p99"] > figures.SLOW_S
            drawn = {chart.name: series.shared(recorder, chart) for chart in CHARTS}
            assert [name for name, lines in drawn.items() if not lines] == []

    with started(tmp_path, "--metrics=extensive", "--bcrypt-cost=13") as address:
        asyncio.run(main(address))


def test_a_host_that_is_down_is_named() -> None:
    async def main() -> None:
        async with console_of("127.0.0.1:1") as console:
            recorder = console.sessions.recorder
            await recorder.look()
            assert list(recorder.down) == ["127.0.0.1:1"]
            assert recorder.looks[-1].hosts == {}

    asyncio.run(main())


def test_charts_are_drawn_and_hot_prefixes_counted(visit: Visits, directory: str) -> None:
    async def steps(user: Visitor) -> None:
        recorder = user.console.sessions.recorder
        recorder.every_s = 0.2
        await user.open("/charts")
        await user.sees("Requests, by method")
        client = user.user.client
        assert client is not None
        async with asyncio.timeout(20):
            while not any(
                line["name"] == "Put"
                for one in client.elements.values()
                if isinstance(one, ui.echart)
                for line in one.options["series"]
            ):
                await user.client.put(f"{directory}hot/key", "")
                await asyncio.sleep(0.02)
        await user.sees(" /s")
        await user.click("Watch for ten seconds")
        async with asyncio.timeout(10):
            while f"{directory}hot/" not in user.seen():
                await user.client.put(f"{directory}hot/key", "")
                await asyncio.sleep(0.05)
        (host,) = recorder.looks[-1].hosts
        await user.open(f"/charts?host={host}")
        await user.sees(host)

    visit(steps)
