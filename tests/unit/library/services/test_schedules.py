"""When runs are due: by seconds, and by the fields of cron while the clock is set."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given
from hypothesis import strategies as st
from muster_client import NotHeld, ops
from muster_client.services import cron as cron_module
from muster_client.services.cron import Cron
from muster_client.services.schedules import following


def test_seconds_between_runs() -> None:
    after = following(10, "UTC")
    assert [after(0), after(9.5), after(10), after(10.1)] == [10, 10, 20, 20]
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="apart"):
            following(wrong, "UTC")


@given(st.floats(1e-3, 1e7), st.floats(0, 1e10))
@example(0.06, 1795816000.0)
@example(86400 / 22, 1795816000.0)
@example(600 / 11, 1795816000.0)
@example(1e-12, 1795816000.0)  # less than what tells two moments apart
def test_each_run_is_due_behind_the_one_before(step: float, moment: float) -> None:
    """One that is due at its own moment again ran without a pause."""
    after = following(step, "UTC")
    for _ in range(500):
        later = after(moment)
        assert moment < later < moment + 2.001 * step + 1e-5
        moment = later


@pytest.mark.parametrize(("schedule", "zone", "said"), [
    ("61 * * * *", "UTC", "no schedule"),
    ("* * */20 * 1L", "UTC", "no time of the next 50 years"),
    ("* * * * *", "Europe/Nowhere", "no time zone"),
])  # fmt: skip
def test_a_schedule_without_runs_is_refused(schedule: str, zone: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        following(schedule, zone)


PLACES = [  # a zone, and a day on which its clock is set forward, and one on which it is set back
    ("Europe/Berlin", (2026, 3, 29)), ("Europe/Berlin", (2026, 10, 25)),
    ("America/New_York", (2026, 3, 8)), ("America/New_York", (2026, 11, 1)),
    ("Australia/Lord_Howe", (2026, 10, 4)), ("Australia/Lord_Howe", (2026, 4, 5)),  # by half an hour
    ("Africa/Cairo", (2026, 4, 24)), ("Africa/Cairo", (2026, 10, 29)),  # at midnight
    ("America/Havana", (2026, 3, 8)), ("America/Havana", (2026, 11, 1)),
]  # fmt: skip
NAMED = ["30 2 * * *", "0 0 * * *", "15 0-3 * * *", "*/10 2 * * *", "0 */2 * * *", "* 1-3 * * *",
         "59 23 * * *", "0,30 1-3 * * SUN", "30 1 * * *"]  # fmt: skip


def runs(schedule: str, zone: str, begin: datetime, behind: float | None = None) -> list[float]:
    """Of three days, each looked for from the one before."""
    after, moment = following(schedule, zone), begin.timestamp() if behind is None else behind
    end = (begin + timedelta(days=3)).timestamp()
    found: list[float] = []
    while (moment := after(moment)) < end:
        assert not found or moment > found[-1]
        found.append(moment)
    return found


@pytest.mark.parametrize(("zone", "day"), PLACES)
@pytest.mark.parametrize("schedule", NAMED)
def test_what_names_hours_runs_once_for_each_time_while_the_clock_is_set(
    schedule: str, zone: str, day: tuple[int, int, int]
) -> None:
    """Those of an hour that is left out together, when the clock is set."""
    place = ZoneInfo(zone)
    begin = datetime(*day, tzinfo=place) - timedelta(days=1)
    found = runs(schedule, zone, begin)
    told = [datetime.fromtimestamp(one, place).replace(tzinfo=None) for one in found]
    assert len(set(told)) == len(told), "a time that comes twice has one run"
    minutes = [begin.astimezone(UTC) + timedelta(minutes=n) for n in range(1, 3 * 1440)]
    shown = [one.astimezone(place).replace(tzinfo=None, fold=0) for one in minutes]
    naive = itertools.takewhile(
        lambda one: one < begin.replace(tzinfo=None) + timedelta(days=3),
        CronSim(schedule, begin.replace(tzinfo=None)))
    for one in naive:
        first = next((at for at, now in zip(minutes, shown, strict=True) if now >= one), None)
        if first is not None and first.timestamp() < (begin + timedelta(days=3)).timestamp():
            assert first.timestamp() in found, f"{one} has no run"


@pytest.mark.parametrize(("schedule", "zone", "day", "number"), [
    ("0 * * * *", "Europe/Berlin", (2026, 10, 25), 25), ("0 * * * *", "Europe/Berlin", (2026, 3, 29), 23),
    ("30 0-23 * * *", "Europe/Berlin", (2026, 10, 25), 25),
    ("*/10 * * * *", "Europe/Berlin", (2026, 3, 29), 138),
    ("*/10 * * * *", "America/New_York", (2026, 11, 1), 150),
])  # fmt: skip
def test_what_runs_each_hour_goes_on_as_time_passes(
    schedule: str, zone: str, day: tuple[int, int, int], number: int
) -> None:
    place = ZoneInfo(zone)
    begin = datetime(*day, tzinfo=place)
    end = (begin + timedelta(days=1)).timestamp()
    found = [one for one in runs(schedule, zone, begin, begin.timestamp() - 1) if one < end]
    assert len(found) == number
    assert len({later - one for one, later in itertools.pairwise(found)}) == 1


@pytest.mark.parametrize(("zone", "day"), PLACES)
@pytest.mark.parametrize("schedule", [*NAMED, "*/20 * * * *"])
def test_a_run_is_due_behind_whatever_moment(schedule: str, zone: str, day: tuple[int, int, int]) -> None:
    """Also one in the hour that comes again: a program may begin there. It is the one that was due before, or
    a later one."""
    after, begin = following(schedule, zone), datetime(*day, tzinfo=ZoneInfo(zone)).timestamp()
    before = 0.0
    for n in range(-120, 360):
        moment = begin + 60 * n + 0.5
        due = after(moment)
        assert due > moment
        assert due == before or before <= moment
        before = due


@pytest.mark.parametrize(("ahead_s", "set_back_s", "warns"), [
    (-1e6, 0, False), (2.0, 0, False), (7200.0, 0, True), (0, 7200, True)])  # the last: its own clock
def test_runs_that_wait_for_the_clock_of_another_program_are_told_of(
    ahead_s: float, set_back_s: float, warns: bool, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader whose clock was ahead has run all until then. Nothing ran any more, and nothing said why."""
    clock, sleeps = [1.8e9], list[float]()

    async def get(key: bytes) -> Any:
        return SimpleNamespace(value=json.dumps({"done": 1.8e9 + ahead_s}), mod_revision=5)

    async def sleep(for_s: float) -> None:
        sleeps.append(for_s)
        if len(sleeps) == 3:
            raise NotHeld("")
        clock.append(clock[0] - set_back_s)

    async def txn(*anything: Any, **how: Any) -> None:
        raise NotHeld("")

    client: Any = SimpleNamespace(get=get, txn=txn)
    cron = Cron(client, "/c", 60.0, client, 10, False, "UTC", lambda: clock[-1])
    leadership: Any = SimpleNamespace(held=ops.key("l").present, token=1)
    # of this module alone: a client that another test left dials in a thread, and sleeps between
    monkeypatch.setattr(cron_module, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(NotHeld), caplog.at_level(logging.WARNING, "muster_client"):
        asyncio.run(cron._one(leadership))
    assert ["7200 s" in line and "/c/state" in line for line in caplog.messages] == [True] * warns


@given(st.sampled_from(["*/7 2,3 * * *", "* * * * *", "0 3 1 * *", 0.3, 60.0, 86400 / 22]),
       st.floats(1.7e9, 1.9e9), st.floats(0, 1e8))  # fmt: skip
def test_of_runs_that_were_missed_the_last_is_found_at_once(
    schedule: str | float, now: float, missed_s: float
) -> None:
    """Without a look at each: a year of them held up the loop, and all that runs in it."""
    client: Any = SimpleNamespace()
    cron = Cron(client, "/c", schedule, client, 10, False, "Europe/Berlin", lambda: now)
    looks, after = 0, cron._next

    def counted(moment: float) -> float:
        nonlocal looks
        looks += 1
        return after(moment)

    cron._next = counted
    due = cron._due(now - missed_s)
    assert looks < 200
    assert due > now - missed_s
    assert after(due) > now
    assert due <= now or due == after(now - missed_s)
