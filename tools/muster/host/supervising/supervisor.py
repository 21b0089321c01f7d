"""A host's processes: nodes and fronts, kept running, stopped in order.

Order of stopping, each step bounded:

1. fronts: they send GOAWAY and answer what they hold. Where node 0's process holds the front
   (``tools.muster.joined``), SIGUSR1 ends that alone;
2. nodes of shards other than 0: each hands its leadership over and answers what it has logged
   (``node.replica.leaving``), for which it needs the order that its host's node 0 feeds it;
3. node 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from cluster.settings import leave_s, limit_s
from tools.muster.config.parse import ConfigError
from tools.muster.host.supervising.children import Child, ChildSpec
from tools.muster.host.supervising.notify import notify
from tools.muster.machine.disk.seal import SealBroken
from tools.muster.machine.process.crash import FATAL_EXIT, REMOVED_EXIT

_CLOSE_S = 5.0  # for a process to close files and connections
AGAIN = -1  # exit code where the children end only to start anew
_AGAIN_S, _LONGEST_AGAIN_S = 1.0, 60.0  # until a directory that could not be made is tried again


@dataclass(slots=True, frozen=True)
class StopLimits:
    """How long a front and a node may take to stop before they are killed."""

    front_s: float
    node_s: float

    @classmethod
    def of(cls, election_timeout_ms: int) -> StopLimits:
        """The longest waits of each."""
        return cls(limit_s(election_timeout_ms) + _CLOSE_S, leave_s(election_timeout_ms) + _CLOSE_S)


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT, and as at etcd SIGHUP, unless it was ignored before the start (``nohup``, ``muster
    local``)."""
    asked = (signal.SIGTERM, signal.SIGINT)
    return asked if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*asked, signal.SIGHUP)


class Logger(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


class Born(Protocol):
    """``tools.muster.host.supervising.born.BornShards``."""

    def make(self, shard: int, voters: Sequence[int], cpus: Sequence[int]) -> ChildSpec: ...
    def drop(self, shard: int) -> None: ...


def say_removed(log: Logger) -> None:
    """etcd's last words of a removed member."""
    log.warning("server error", error="the member has been permanently removed from the cluster")
    log.warning("data-dir used by this member must be removed")


class Supervisor:
    """Runs children until told to stop."""

    def __init__(
        self, specs: Sequence[ChildSpec], log: Logger, limits: StopLimits,
        grown: Callable[[int], None] = lambda level: None, born: Born | None = None,
        served: Callable[[], None] = lambda: None, socket: str = "",
    ) -> None:
        """``grown``: notes to which level the host's data has grown; ``served``: that the host has served.
        OSError. ``born``: makes nodes of shards that are born, and drops them. ``socket``: a path in the run
        directory; once it is gone, a crash has all children start anew."""
        self._grown = grown
        self._served = served
        self._socket = socket
        self._born = born
        self._drops: set[asyncio.Task[None]] = set()
        self._dropping: set[int] = set()  # shards
        self._forming: set[int] = set()  # shards that do not serve yet
        self._shards_event: dict[str, Any] | None = None  # the latest word of node 0 on shards
        self._again_s = _AGAIN_S
        self.children = [Child(spec, self._on_change) for spec in specs]
        self.announced = False  # READY=1 was sent
        self.told_to_stop = False  # not only ended because a child refused
        self._log = log
        self._limits = limits
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._exit_code = 0

    @property
    def ready(self) -> bool:
        """Every node knows a leader and every front serves. Clients need no console, and no node of a shard
        that still forms, or is dropped: that has no leader."""
        return all(child.ready for child in self.children if self._serves(child))

    def _serves(self, child: Child) -> bool:
        kind, shard = child.spec.kind, child.spec.index
        return kind == "front" or (kind == "node" and shard not in self._forming | self._dropping)

    def runs_node(self, shard: int) -> bool:
        """Whether this host has a node of a shard."""
        return self._node(shard) is not None

    def _node(self, shard: int) -> Child | None:
        nodes = (child for child in self.children if child.spec.kind == "node")
        return next((child for child in nodes if child.spec.index == shard), None)

    def stop(self, exit_code: int = 0) -> None:
        """Stop all children and let :meth:`run` return; told so a second time: at once. With an exit code it
        is this host's own doing."""
        if not exit_code:
            if self.told_to_stop:
                self._hurry.set()
            self.told_to_stop = True
        self._end(exit_code)

    def _end(self, exit_code: int) -> None:
        if not self._stop.is_set():
            self._exit_code = exit_code
            self._stop.set()

    def kill(self, kind: str, index: int) -> int:
        """kill -9 of one child; its pid, 0 if it does not run."""
        for child in self.children:
            if (child.spec.kind, child.spec.index) == (kind, index):
                pid = child.pid
                child.signal(signal.SIGKILL)
                return pid
        return 0

    async def run(self) -> int:
        """Start all children and keep them running until :meth:`stop` or a fatal refusal; the exit code."""
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (*stop_signals(), signal.SIGCHLD)}
        for number in stop_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        if os.getpid() == 1:
            loop.add_signal_handler(signal.SIGCHLD, self._take_away)
        try:
            for child in self.children:
                child.start()
            await self._stop.wait()
            if self.announced and self._exit_code != AGAIN:
                notify("STOPPING=1")
            await self._stop_all()
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
        return 0 if self._exit_code == AGAIN and self.told_to_stop else self._exit_code

    def _take_away(self) -> None:
        """To the first process of a container falls what others leave, as a backup's child: it would stay as
        a zombie. Own children are awaited elsewhere."""
        own = {child.pid for child in self.children}
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in own:
                    return  # the rest when the next one ends
                os.waitpid(found.si_pid, 0)

    async def _stop_all(self) -> None:
        for child in self.children:
            # systemd may have signalled all of them: what ends now is not started again
            child.stopping = True
        hurry = asyncio.get_running_loop().create_task(self._hurry.wait())
        try:
            for stage in self._stages():
                stops = asyncio.gather(*stage)
                await asyncio.wait((stops, hurry), return_when=asyncio.FIRST_COMPLETED)
                if hurry.done():
                    for child in self.children:
                        child.stopping = True
                        child.signal(signal.SIGKILL)
                await stops
        finally:
            hurry.cancel()

    def _stages(self) -> Iterator[list[Coroutine[Any, Any, None]]]:
        """Each stage's work is done at once."""
        fronts = [c for c in self.children if c.spec.kind == "front"]
        nodes = [c for c in self.children if c.spec.kind == "node"]
        consoles = [c for c in self.children if c.spec.kind == "console"]
        limits = self._limits
        yield [*(self._stop_one(c, limits.front_s) for c in consoles),
               *(self._stop_one(c, limits.front_s) for c in fronts),
               *(c.drain(limits.front_s) for c in nodes if c.spec.serves)]
        yield [self._stop_one(c, limits.node_s) for c in nodes if c.spec.index]
        yield [self._stop_one(c, limits.node_s) for c in nodes if not c.spec.index]

    async def _stop_one(self, child: Child, limit_s: float) -> None:
        if not await child.stop(limit_s):
            self._log.warning("a child had to be killed", child=child.spec.label, limit_s=limit_s)

    def _on_signal(self, number: int) -> None:
        self._log.info("received signal; shutting down", signal=signal.Signals(number).name)
        self.stop()

    def _on_change(self, child: Child, event: dict[str, Any]) -> None:
        kind, label = event.get("event"), child.spec.label
        if kind == "started":
            self._log.info("started", child=label, pid=child.pid, cpu=child.spec.cpu)
        elif kind == "exited":
            self._on_exit(child, event)
        elif kind == "lacking":  # for a moment, maybe: the others go on
            self._log.error("cannot start a child; trying again", child=label, error=event["error"],
                            in_s=event["again_in_s"])
        elif kind == "failed":  # it cannot even be started
            self._log.error("cannot start a child; stopping this host", child=label, error=event["error"])
            self.stop(1)
        elif kind == "leader":
            leader = f"{event.get('leader', 0):x}"
            self._log.info(
                "leader", child=label, shard=event.get("shard"), leader=leader, name=event.get("name", ""),
                term=event.get("term"),
            )
        elif kind == "grown":
            level = event["level"]
            self._note(partial(self._grown, level), "that the cluster's data has grown", level=level)
        elif kind == "shards":
            self._follow_shards(event)
        elif kind == "ready":
            self._log.info("child is ready", child=label, pid=child.pid)
        if self.ready and not self.announced:
            self.announced = True
            self._note(self._served, "that this host serves")
            self._log.info("ready to serve client requests")
            notify("READY=1")

    def _follow_shards(self, event: dict[str, Any]) -> None:
        """Node 0 says which shards were born, with their first voters, which of them still form, and which
        are dropped for good."""
        if self._born is None or self._stop.is_set():
            return
        self._shards_event = event
        self._forming = set(event["forming"])
        lacking = False
        for shard, voters in event["born"].items():
            if self.runs_node(int(shard)):
                continue
            try:
                spec = self._born.make(int(shard), voters, [child.spec.cpu for child in self.children])
            except (ConfigError, SealBroken) as error:
                self._log.error("cannot run a node of a shard that was born; stopping this host",
                                shard=int(shard), error=str(error))
                self.stop(1)
                return
            except OSError as error:  # a full disk, or no descriptors: the other shards go on
                self._log.error("cannot make the directory of a shard that was born; trying again",
                                shard=int(shard), error=str(error))
                lacking = True
                continue
            child = Child(spec, self._on_change)
            self.children.append(child)
            child.start()
        if lacking:
            asyncio.get_running_loop().call_later(self._again_s, self._try_again, event)
            self._again_s = min(self._again_s * 2, _LONGEST_AGAIN_S)
        else:
            self._again_s = _AGAIN_S
        for shard in event["dropped"]:
            if (dropped := self._node(shard)) is not None and shard not in self._dropping:
                self._dropping.add(shard)
                task = asyncio.get_running_loop().create_task(self._drop(dropped))
                self._drops.add(task)
                task.add_done_callback(self._drops.discard)

    def _try_again(self, event: dict[str, Any]) -> None:
        if event is self._shards_event:  # else a newer one was followed
            self._follow_shards(event)

    async def _drop(self, child: Child) -> None:
        await self._stop_one(child, self._limits.node_s)
        if self._stop.is_set() or self._born is None:
            return  # the next start does it
        self.children.remove(child)
        self._dropping.discard(child.spec.index)  # node 0 may come back from before its birth
        try:
            self._born.drop(child.spec.index)
        except (OSError, ConfigError) as error:  # the next start does it
            self._log.error(
                "cannot remove the files of a dropped shard", shard=child.spec.index, error=str(error))
        else:
            self._log.info("a shard was dropped: removed its node and its data", shard=child.spec.index)

    def _note(self, note: Callable[[], None], what: str, **facts: Any) -> None:
        try:
            note()
        except (OSError, ConfigError) as error:  # it is said again after the next start
            self._log.error(f"cannot note in identity.json {what}", **facts, error=str(error))

    def _on_exit(self, child: Child, event: dict[str, Any]) -> None:
        label, code = child.spec.label, event["code"]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if child.stopping:
            self._log.info("stopped", child=label, how=how)
        elif code == REMOVED_EXIT:
            say_removed(self._log)
            child.stopping = True
            self._end(0)
        elif code == FATAL_EXIT:
            self._log.error(
                "a child refuses to run; stopping this host", child=label, reason=child.fatal or "see its log"
            )
            child.stopping = True
            self.stop(1)
        else:
            self._log.warning(
                "crashed; starting it again", child=label, how=how, after_s=event["ran_s"],
                in_s=event["again_in_s"])
            if self._socket and not os.path.exists(self._socket):  # the others' sockets went with it
                self._log.error("the run directory was removed; starting all processes again",
                                run_dir=os.path.dirname(self._socket))
                self.stop(AGAIN)
