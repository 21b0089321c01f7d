"""Jobs by the clock that run once in a cluster, whatever programs live or die.

The programs elect a leader (``name/leader``), which runs what is due; ``name/state`` says up to which time
all runs are over. A run is over in the same step in which that is written, and only the leader can write it.
So none is lost: the next leader begins the run again that the one before did not end. And what a job writes
in that step (:meth:`Run.finish`) is written once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from muster_client import ops
from muster_client.errors import MusterError, NotHeld
from muster_client.model import KeyValue
from muster_client.queueing import Leadership
from muster_client.ranges import Text, data
from muster_client.services.leading import while_leading
from muster_client.services.schedules import following, last
from muster_client.wire.retries import is_final, passes

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
_LONGEST_SLEEP_S = 10.0  # the clock may be set meanwhile
_AGAIN_S = 1.0
_AHEAD_S = 60.0  # by which programs' clocks hardly differ


class Run:
    """One run. ``due``: when it was due, in seconds of Unix; it names the run. ``attempt``: from 1; more
    where a leader before did not end it, or nobody knows."""

    def __init__(self, cron: Cron, leadership: Leadership, due: float, attempt: int, modified: int) -> None:
        self.due, self.attempt = due, attempt
        self.token, self.held = leadership.token, leadership.held
        self._cron, self._leadership, self._modified = cron, leadership, modified
        self.finished = False
        self._met: MusterError | None = None  # by the last attempt to end it

    @property
    def lost(self) -> bool:
        """Whether another may lead already, and run it again."""
        return self._leadership.lost

    async def finish(self, *done: ops.Op | ops.Txn) -> None:
        """End the run, and do some operations in the same step: once, whatever dies. NotHeld where another
        leads: unless it has ``maybe_done``, nothing is done, and it runs there. A job that does not call it
        is ended behind it."""
        if self.finished:
            raise RuntimeError("the run has ended already")
        state = {"done": self.due, "by": self.token}
        try:
            await self._cron.write(self.held, self._modified, state, done)
        except MusterError as error:
            self._met = error
            raise
        self.finished = True

    def _check_told(self) -> None:
        """MusterError: nobody knows whether it has ended, with what its job writes."""
        if not self.finished and self._met is not None and passes(self._met):
            raise self._met


Job = Callable[[Run], Awaitable[None]]


class Cron:
    """One job; see :meth:`muster_client.Client.cron`."""

    def __init__(
        self, client: Client, name: Text, schedule: str | float, job: Job, ttl_s: int, catch_up: bool,
        zone: str, now: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._name, self._job = client, data(name), job
        self._next = following(schedule, zone)
        self._ttl_s, self._catch_up, self._now = ttl_s, catch_up, now
        self._key = self._name + b"/state"

    async def run(self) -> None:
        """Take part until it is cancelled."""
        await while_leading(self._client, self._name + b"/leader", self._lead, "", self._ttl_s)

    async def _lead(self, leadership: Leadership) -> None:
        while True:
            try:
                await self._one(leadership)
            except MusterError as error:
                if leadership.lost or is_final(error):
                    raise
                log.warning("cron %r: %s", self._name, error)
                await asyncio.sleep(_AGAIN_S)

    async def _one(self, leadership: Leadership) -> None:
        """Wait for the next run that is due, and run it."""
        kv = await self._client.get(self._key)
        if kv is None:  # runs are due from now on
            await self.write(leadership.held, 0, {"done": self._now(), "by": leadership.token}, ())
            return
        state = json.loads(kv.value)
        done, told = float(state["done"]), False
        due = self._due(done)
        while (left_s := due - self._now()) > 0:
            told = told or self._is_ahead(done)
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))
        attempt = int(state.get("attempt", 0)) + 1 if state.get("begun") == due else 1
        begun = {"done": state["done"], "begun": due, "attempt": attempt, "by": leadership.token}
        modified = await self.write(leadership.held, kv.mod_revision, begun, ())
        run = Run(self, leadership, due, attempt, modified)
        try:
            await self._job(run)
        except Exception as error:
            if leadership.lost:  # of whatever kind: another runs it again, and this takes part on
                raise NotHeld("the leadership was lost during the run") from error
            run._check_told()
            log.exception("cron %r: the run of %s has failed; it is not repeated", self._name, due)
        if not run.finished:
            await run.finish()

    def _due(self, done: float) -> float:
        """When the next run is due, or was: without ``catch_up`` the last one of those that were missed."""
        due = self._next(done)
        return due if self._catch_up else last(self._next, due, self._now())

    def _is_ahead(self, done: float) -> bool:
        """Whether the state is ahead of the clock, which may have been set back; warns then. Which clock is
        right is not known, and no run may come twice."""
        if (ahead_s := done - self._now()) <= _AHEAD_S:
            return False
        log.warning(
            "cron %r: its runs until %.0f s from now are over, by a clock that was ahead of this one: "
            "none is due until then. If that clock was wrong, delete %r and start this program again",
            self._name, ahead_s, self._key)
        return True

    async def write(
        self, held: ops.Condition, modified: int, state: Mapping[str, object],
        done: tuple[ops.Op | ops.Txn, ...],
    ) -> int:
        """Change the state, if it is as it was read; the revision. NotHeld if another has. Each state of a
        leader is another one, so that one without an answer is known when it is found there."""
        value, sent = json.dumps(state, sort_keys=True), list[None]()
        result = await self._client.txn(
            ops.when(held, ops.key(self._key).mod_revision == modified)
            .then(ops.put(self._key, value), *done).otherwise(ops.get(self._key)), repeatable=True,
            on_send=lambda: sent.append(None))
        if result:
            return result.revision
        kv: KeyValue | None = result.found().kv
        if kv is not None and kv.mod_revision > modified and kv.text == value:
            return kv.mod_revision
        raise NotHeld("another leads, and runs it", maybe_done=len(sent) > 1)
