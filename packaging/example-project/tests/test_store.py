from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from nightly import run_once

from muster.testing import Store


def test_a_job_runs_once_a_day(muster: Store) -> None:
    ran: list[int] = []

    def machine(number: int) -> bool:
        return run_once(muster.client, "report", "2026-11-24", lambda: ran.append(number))

    with ThreadPoolExecutor(4) as machines:
        assert sorted(machines.map(machine, range(4))) == [False, False, False, True]
    assert len(ran) == 1


def test_the_next_test_finds_an_empty_store(muster: Store) -> None:
    assert muster.client.get("/nightly/report/2026-11-24") is None
    assert run_once(muster.client, "report", "2026-11-24", lambda: None)


def test_keys_of_ones_own(muster: Store) -> None:
    muster.client.put(muster.prefix + "a", "1")
    assert muster.client.get(muster.prefix + "a").text == "1"
