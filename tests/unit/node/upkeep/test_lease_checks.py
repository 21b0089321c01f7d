"""The periodic check of keys against leases: when it runs, and that what it finds is heard of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rocksdict import WriteBatch
from structlog.testing import capture_logs

from cluster.effects import records
from node.slicing.slicer import Slicer
from node.storage import StateStore
from node.storage.keys import LEASE_KEY
from node.upkeep.lease_checks import LeaseChecks

INTERVAL_S = 600


class Replica:
    """A store with keys on a lease, and a clock."""

    def __init__(self, path: Path, interval_s: float = INTERVAL_S, member_id: int = 0) -> None:
        self.store = StateStore.open(path)
        self.store.apply([(1, 1, records.lease_grant(5, 60) + b"".join(
            records.put(b"%04d" % n, 0, 1, b"", 5) for n in range(3000)))])
        self.seconds = 0.0
        self.slicer = Slicer(asyncio.get_running_loop())
        self.corrupt = 0
        self.checks = LeaseChecks(self.store, self.slicer, interval_s, lambda: self.seconds, member_id,
                                  self._tell_corrupt)

    def _tell_corrupt(self) -> None:
        self.corrupt += 1

    async def until(self, seconds: float) -> None:
        """Time passes."""
        while self.seconds < seconds:
            self.seconds += 1
            self.checks.second()
            while self.slicer.pending:
                await asyncio.sleep(0)

    def lose(self, key: bytes) -> None:
        """The row that says that a key hangs on its lease."""
        batch = WriteBatch(raw_mode=True)
        batch.delete(LEASE_KEY.pack(b"l", 5) + key)
        self.store.write(batch)


def test_a_key_that_lost_its_lease_is_an_error_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        replica = Replica(tmp_path)
        with capture_logs() as logged:
            await replica.until(INTERVAL_S)
            assert (replica.checks.done, replica.checks.mismatches, replica.corrupt) == (1, 0, 0)
            assert not [line for line in logged if line["log_level"] == "error"]
            replica.lose(b"0007")
            await replica.until(2 * INTERVAL_S)
        errors = [line for line in logged if line["log_level"] == "error"]
        assert (replica.checks.done, replica.checks.mismatches, replica.corrupt) == (2, 1, 1)
        assert len(errors) == 1
        assert errors[0]["mismatches"] == 1
        assert "0007" in errors[0]["examples"][0]
        assert "would outlive it" in errors[0]["examples"][0]
        replica.store.close()

    asyncio.run(scenario())


def test_rows_of_keys_that_left_a_lease_are_removed_though_nobody_compacts(tmp_path: Path) -> None:
    """100,000 keys that came and went under one lease."""
    async def scenario() -> None:
        replica = Replica(tmp_path)
        store = replica.store
        for turn in range(50):
            names = [b"/%02d/%04d" % (turn, n) for n in range(2000)]
            store.apply(
                [
                    (
                        turn + 2,
                        1,
                        b"".join(
                            [records.put(name, 0, 1, b"", 5) for name in names]
                            + [records.delete(name) for name in names]
                        ),
                    )
                ]
            )
        live = store.lease_keys(5)
        assert len(list(store.attachment_rows(5))) == 103_000
        replica.checks.second()
        replica.seconds = INTERVAL_S
        replica.checks.second()
        slices = 0
        while not replica.checks.done:
            await asyncio.sleep(0)
            slices += 1
        assert (replica.checks.removed, replica.checks.mismatches) == (100_000, 0)
        assert slices > 100
        assert len(list(store.attachment_rows(5))) == 3000
        assert store.lease_keys(5) == live
        replica.seconds += INTERVAL_S
        replica.checks.second()
        while replica.checks.done < 2:
            await asyncio.sleep(0)
        assert (replica.checks.removed, replica.checks.mismatches) == (100_000, 0)
        store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("interval_s", "done"), [(0, 0), (60, 30), (INTERVAL_S, 3)])
def test_it_runs_as_often_as_was_asked(tmp_path: Path, interval_s: int, done: int) -> None:
    async def scenario() -> None:
        replica = Replica(tmp_path, interval_s)
        await replica.until(1780)
        assert replica.checks.done == done
        replica.store.close()

    asyncio.run(scenario())


def test_hosts_check_at_different_times(tmp_path: Path) -> None:
    async def scenario() -> None:
        firsts = set()
        for member_id in range(3):
            replica = Replica(tmp_path / str(member_id), member_id=member_id)
            while not replica.checks.done:
                await replica.until(replica.seconds + 1)
            firsts.add(replica.seconds)
            assert INTERVAL_S / 2 <= replica.seconds <= INTERVAL_S
            replica.store.close()
        assert len(firsts) == 3

    asyncio.run(scenario())
