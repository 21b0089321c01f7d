"""When the loop syncs by itself, and when the thread does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tools.muster.machine.disk.syncer import Syncer

LONG = 200  # syncs: as many as it takes to be sure


class Disk:
    """Takes as long as the test says, by a clock that goes by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes_s = 0.0

    def sync(self) -> None:
        self.now += self.takes_s


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    yield found
    found.close()


class Log:
    """A syncer that is asked again as soon as it is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, disk: Disk) -> None:
        self._loop = loop
        self._disk = disk
        self._done: asyncio.Future[int] = loop.create_future()
        self._sequence = 0
        self.syncer = Syncer(loop, disk.sync, lambda sequence: self._done.set_result(sequence),
                             lambda: disk.now)

    def inline(self, *takes_s: float, quiet: bool = True) -> list[bool]:
        """Whether each of these syncs was done in the loop."""
        found = []
        for self._disk.takes_s in takes_s:
            self._sequence += 1
            self._done = self._loop.create_future()
            found.append(self.syncer.request(self._sequence, quiet=quiet))
            if not found[-1]:
                assert self._loop.run_until_complete(self._done) == self._sequence
        return found


@pytest.fixture
def log(loop: asyncio.AbstractEventLoop, disk: Disk) -> Iterator[Log]:
    found = Log(loop, disk)
    yield found
    found.syncer.close()


def test_a_fast_disk_is_synced_in_the_loop_unless_much_is_going_on(log: Log) -> None:
    assert all(log.inline(*[0.0002] * LONG))
    assert not any(log.inline(*[0.0002] * 3, quiet=False))
    assert log.syncer.took.count == LONG + 3


def test_a_slow_disk_is_left_to_the_thread(log: Log) -> None:
    assert not any(log.inline(*[0.02] * LONG)[20:])


def test_waits_for_a_cpu_do_not_make_a_disk_slow(log: Log) -> None:
    assert all(log.inline(*[0.0001, 0.003, 0.0001, 0.0001] * LONG)[4:])


def test_a_loop_that_nobody_waits_for_may_wait_for_a_disk_of_some_milliseconds(log: Log) -> None:
    log.inline(*[0.003] * LONG)
    assert not any(log.inline(*[0.003] * 3))
    log.syncer.unserved = True
    assert all(log.inline(*[0.003] * LONG))
    assert not any(log.inline(*[0.02] * LONG)[20:])


def test_a_disk_that_has_become_fast_is_noticed(log: Log) -> None:
    log.inline(*[0.02] * LONG)
    assert all(log.inline(*[0.0002] * 40)[20:])


def test_once_more_is_beside_the_loop_and_reports_the_last_number_again(
    loop: asyncio.AbstractEventLoop, disk: Disk
) -> None:
    log = Log(loop, disk)
    assert log.inline(0.0001) == [True]
    log._done = loop.create_future()
    count = log.syncer.took.count
    log.syncer.again()
    log.syncer.again()  # one is under way
    assert log.syncer.busy
    assert loop.run_until_complete(log._done) == 1
    assert log.syncer.took.count == count + 1
    log.syncer.close()
