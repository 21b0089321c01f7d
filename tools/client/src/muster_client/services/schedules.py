"""When the runs of a schedule are due.

Fields of cron go by the clock of a time zone, which is set forward and back. A schedule that names hours runs
once for each time that it names. One that the clock shows twice has its run at the first. All in an hour that
is left out have one run together, when the clock is set forward. A schedule of every hour (``*``, ``0-23``)
goes on as time passes, in an hour that comes twice, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Next = Callable[[float], float]  # the first due time behind a time; both in seconds of Unix
_HOURS = -4  # its place among the fields, of which the first may be seconds


def following(schedule: str | float, zone: str) -> Next:
    """What a schedule says: seconds between runs, counted from 1970, or five fields as cron has them, by the
    clock of a time zone. ValueError; ImportError without cronsim (``muster-client[cron]``)."""
    if not isinstance(schedule, str):
        step = float(schedule)
        if not step > 0 or math.isinf(step):
            raise ValueError("runs are some seconds apart")
        return lambda moment: _multiple_behind(moment, step)
    from cronsim import CronSim, CronSimError

    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"{zone!r} is no time zone: {error}") from None
    try:
        known = CronSim(schedule, datetime.now(UTC))
        next(known)
    except CronSimError as error:
        raise ValueError(f"{schedule!r} is no schedule: {error}") from None
    except StopIteration:
        raise ValueError(f"{schedule!r} names no time of the next 50 years") from None
    fields = schedule.split()
    always = known.hours == set(range(24))
    if always:
        fields[_HOURS] = "*"  # in this form alone cronsim counts hours that pass
    text = " ".join(fields)

    def passing(moment: float) -> float:
        return next(CronSim(text, datetime.fromtimestamp(moment, place))).timestamp()

    def named(moment: float) -> float:
        for shown in CronSim(text, datetime.fromtimestamp(moment, place).replace(tzinfo=None, fold=0)):
            if (due := _first(shown, place)) > moment:  # else the clock shows that time again
                return due
        raise ValueError(f"{schedule!r} names no more times")

    return passing if always else named


def last(after: Next, due: float, now: float) -> float:
    """The last due time until now, from one on, which it is itself where no other is. By halves: there may be
    millions between."""
    late = now
    while (later := after(due)) <= now:
        middle = (due + late) / 2
        if (found := after(middle)) <= now:
            due = found
        else:
            due, late = later, middle
    return due


def _multiple_behind(moment: float, step: float) -> float:
    """Floats round: the next multiple may be the moment itself."""
    number = math.floor(moment / step) + 1
    due = number * step if number * step > moment else (number + 1) * step
    return max(due, math.nextafter(moment, math.inf))


def _first(shown: datetime, place: ZoneInfo) -> float:
    """When a clock shows a time for the first time; one that it leaves out: when it is set forward."""
    while True:
        moment = shown.replace(tzinfo=place).timestamp()
        if datetime.fromtimestamp(moment, place).replace(tzinfo=None, fold=0) == shown:
            return moment
        shown = shown.replace(second=0) + timedelta(minutes=1)
