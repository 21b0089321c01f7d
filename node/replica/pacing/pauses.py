"""The timers of ``cluster.pacing``'s policies at a node: each waits until its policy's time, and calls
back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from cluster.pacing.gathering import Gathering
from cluster.pacing.late_feed import LateFeed
from cluster.pacing.pace import ENOUGH, Company, Pace
from cluster.pacing.returning import Returning


class _Pause:
    """A timer for the end of a policy's pause. ``wake()``: have a tick run."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether something is left for later."""
        return self._timer is not None

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GatheringTimer(_Pause):
    """What is committed and not yet applied, in one replica. ``apply(last)`` applies everything up to there;
    ``unseen()``: no request waits for it; ``wake()``: after an apply that no tick asked for."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, apply: Callable[[int], None], unseen: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        super().__init__(loop, wake)
        self._policy = Gathering()
        self._apply = apply
        self._unseen = unseen
        self._stopped = False
        self._goes_on = False  # a turn for what is committed behind a long run is to come

    def take(self, last: int) -> None:
        """Everything up to ``last`` is committed: apply it now, or later."""
        policy, now_ms = self._policy, self._loop.time() * 1000
        if policy.take(last, unseen=self._unseen(), now_ms=now_ms):
            self._now()
        elif self._timer is None:
            assert policy.until_ms is not None
            self._timer = self._loop.call_later((policy.until_ms - now_ms) / 1000, self.catch_up)

    def catch_up(self) -> None:
        if self._timer is not None:
            self._now()
            self._wake()

    def _now(self) -> None:
        self.close()
        self._apply(self._policy.committed)
        self._policy.applied(self._loop.time() * 1000)

    def later(self) -> None:
        """:meth:`go_on` once the loop has been served."""
        if not self._goes_on:
            self._goes_on = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._goes_on = False
        self.go_on()

    def go_on(self) -> None:
        if not self._stopped:
            self._apply(self._policy.committed)
            self._wake()

    def stop(self) -> None:
        self.close()
        self._stopped = True

    def close(self) -> None:
        self._policy.leave()
        self._cancel()


class LateFeedTimer(_Pause):
    """Records of the order that a shard's follower has and has not applied. ``unseen()``: no request waits
    for them; ``wake()``: a tick applies what is due."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, unseen: Callable[[], bool], wake: Callable[[], None]
    ) -> None:
        super().__init__(loop, wake)
        self._policy = LateFeed()
        self._unseen = unseen

    def may_wait(self, records: int, changes: Callable[[], int]) -> bool:
        """Whether so many records that are here may be applied later; a tick is then woken for them.
        ``changes()``: those in them that can be applied."""
        policy, now_ms = self._policy, self._loop.time() * 1000
        if not policy.may_wait(records, changes, unseen=self._unseen(), now_ms=now_ms):
            return False
        if self._timer is None:
            assert policy.until_ms is not None
            self._timer = self._loop.call_later((policy.until_ms - now_ms) / 1000, self._late)
        return True

    def applied(self) -> None:
        self._cancel()
        self._policy.applied(self._loop.time() * 1000)

    def _late(self) -> None:
        self.hasten()
        self._wake()

    def hasten(self) -> None:
        self._cancel()
        self._policy.hasten()

    def close(self) -> None:
        self._cancel()
        self._policy.leave()


class ReturningTimer(_Pause):
    """Clients of one shard's leader that are about to ask again, while CPUs are ``scarce()``. ``wake()``: the
    wait is over."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, pace: Pace, wake: Callable[[], None],
        scarce: Callable[[], bool],
    ) -> None:
        super().__init__(loop, wake)
        self.policy = Returning(pace)
        self._scarce = scarce

    def answered(self, count: int, queued: int) -> None:
        """``count`` requests are answered now, while ``queued`` are queued already."""
        policy, now_ms = self.policy, self._loop.time() * 1000
        if count < policy.fewest or not self._scarce():
            return
        policy.answered(count, queued, now_ms)
        if policy.until_ms is not None and self._timer is None:
            self._timer = self._loop.call_later((policy.until_ms - now_ms) / 1000, self._in_vain)

    def taken(self) -> None:
        self._cancel()
        self.policy.taken(self._loop.time() * 1000)

    def _in_vain(self) -> None:
        self._timer = None
        self.policy.in_vain()
        self._wake()

    def close(self) -> None:
        self._cancel()
        self.policy.end()


class CompanyTimer(_Pause):
    """Shards whose reports the sequencer's next record waits for. ``wake()``: the wait is over.
    ``scarce()``: whether CPUs are; while they are not, ``ENOUGH`` changes wait for no report."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None], scarce: Callable[[], bool],
    ) -> None:
        super().__init__(loop, wake)
        self.policy = Company()
        self.fewest = ENOUGH
        self._scarce = scarce

    def awaited(self, changes: Callable[[], int]) -> bool:
        """Whether the next record waits. ``changes()``: those that it would have now."""
        self._cancel()
        patience_s = self.policy.patience_s(self._loop.time())
        if not patience_s or self.enough(changes):
            return False
        self._timer = self._loop.call_later(patience_s, self._wake)
        return True

    def enough(self, changes: Callable[[], int]) -> bool:
        return not self._scarce() and changes() >= self.fewest

    def reported(self, shard: int) -> None:
        self.policy.reported(shard, self._loop.time())

    def cut(self, grown: Mapping[int, int]) -> None:
        self.policy.cut(grown, self._loop.time())

    def close(self) -> None:
        """The term is lost."""
        self._cancel()
        self.policy = Company(self.policy.busy)
