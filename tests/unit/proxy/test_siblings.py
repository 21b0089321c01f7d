"""One scrape has the figures of every front of a host."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily, Metric

from cluster.faults import faults
from proxy.metrics import siblings
from proxy.metrics.siblings import Siblings, encode, labelled


def figures(value: float) -> list[Metric]:
    puts = CounterMetricFamily("puts", "Puts.", labels=["code"])
    puts.add_metric(["OK"], value)
    return [puts]


def seen(families: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for f in families
        for s in f.samples
    }


def test_samples_of_all_fronts_are_told_apart_by_their_front() -> None:
    found = {1: encode(figures(5)), 0: encode(figures(2))}
    families = list(labelled(found))
    assert [(f.name, f.type) for f in families] == [("puts", "counter")]
    assert seen(families) == {
        ("puts_total", "code=OK", "front=0"): 2,
        ("puts_total", "code=OK", "front=1"): 5,
    }


def test_a_front_alone_needs_no_label_and_no_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        alone = Siblings(str(tmp_path), 0, 1, lambda: figures(3), lambda: None)
        await alone.start()
        got: list[Metric] = []
        alone.gather(got.extend)
        assert seen(got) == {("puts_total", "code=OK"): 3}
        assert list(tmp_path.iterdir()) == []
        alone.close()

    asyncio.run(scenario())


def test_those_that_ask_meanwhile_share_the_next_collection(tmp_path: Path) -> None:
    """Any client may ask, by /v2/stats/store: 50 at once held a front for most of a second."""

    async def scenario() -> None:
        collected = [0, 0]

        def own(index: int) -> list[Metric]:
            collected[index] += 1
            return figures(collected[index])

        fronts = [Siblings(str(tmp_path), i, 2, lambda i=i: own(i), lambda: None) for i in (0, 1)]  # type: ignore[misc]
        for front in fronts:
            await front.start()
        told: list[int] = []

        def ask(name: int) -> None:
            def done(families: Iterable[Metric]) -> None:
                told.append(name)
                assert set(seen(families).values()) == {1 + name // 50}, "what was before it asked is old"
                if name < 50:
                    ask(name + 50)

            fronts[0].gather(done)

        for name in range(50):
            ask(name)
        async with asyncio.timeout(60):
            while len(told) < 100:
                await asyncio.sleep(0.01)
        assert told == list(range(100))
        assert collected == [2, 2]
        for front in fronts:
            front.close()

    asyncio.run(scenario())


def test_fronts_that_are_gone_or_silent_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "LIMIT_S", 1.0)

    async def scenario() -> None:
        hold = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hold.wait()
            writer.close()

        (tmp_path / "front-0.sock").touch()  # what a killed front left: its successor takes the place
        fronts = [Siblings(str(tmp_path), i, 4, lambda i=i: figures(i + 1), lambda: None) for i in (0, 1)]  # type: ignore[misc]
        for front in fronts:
            await front.start()
        mute = await asyncio.start_unix_server(silent, tmp_path / "front-2.sock")
        for front in fronts:
            done: asyncio.Future[dict[tuple[str, ...], float]] = asyncio.get_running_loop().create_future()
            front.gather(lambda families, done=done: done.set_result(seen(families)))  # type: ignore[misc]
            assert await asyncio.wait_for(done, 60) == {
                ("puts_total", "code=OK", "front=0"): 1, ("puts_total", "code=OK", "front=1"): 2}
        hold.set()
        for front in fronts:
            front.close()
        mute.close()
        assert [p.name for p in tmp_path.iterdir() if p.name != "front-2.sock"] == []

    asyncio.run(scenario())


def test_a_front_whose_figures_have_another_form_is_left_out(tmp_path: Path) -> None:
    """Another program version may run there, after an upgrade: its figures ended the process that asked."""

    async def scenario() -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'[["puts", "Puts.", "counter", [], "more"]]')
            writer.close()

        server = await asyncio.start_unix_server(other, tmp_path / "front-1.sock")
        front = Siblings(str(tmp_path), 0, 2, lambda: figures(1), lambda: None)
        done: asyncio.Future[dict[tuple[str, ...], float]] = asyncio.get_running_loop().create_future()
        front.gather(lambda families: done.set_result(seen(families)))
        assert await asyncio.wait_for(done, 30) == {("puts_total", "code=OK", "front=0"): 1}
        front.close()
        server.close()

    asyncio.run(scenario())
    assert len(faults.take()) == 1


@pytest.mark.parametrize("failing", ["look", "own"])
def test_a_front_that_cannot_count_ends_the_connection(tmp_path: Path, failing: str) -> None:
    """Each scrape cost it a descriptor, for good, where it had none left to list them."""

    def fail() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> None:
        parts: dict[str, Any] = {"own": lambda: figures(1), "look": lambda: None, failing: fail}
        front = Siblings(str(tmp_path), 1, 2, **parts)
        await front.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "front-1.sock"))
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        front.close()

    asyncio.run(scenario())
    assert len(faults.take()) == 1
