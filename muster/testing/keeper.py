"""The process that runs the hosts of a :class:`muster.testing.Cluster`, and cuts them off.

``python -m muster.testing.keeper FD PLAN``: one JSON object a line asks on the socket FD, one answers. At the
end of the socket, which comes however the tests' process ends, it kills all hosts and removes their data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from muster.testing import ports
from muster.testing.links import Links
from node.durable import write_whole
from tools.muster import peer_keys
from tools.muster.config.parse import ConfigError
from tools.muster.host import rundir
from tools.muster.local import commands, layout
from tools.muster.local import hosts as local

# no host's machine fails here, and a killed process keeps what it wrote: nothing need be synced
_FLAGS = ("--unsafe-no-fsync=true", "--log-format=console")
_LOOK_S = 0.02
_DOORS = "doors.json"  # the ports at which hosts are dialled by each other, which their data names


def planned(plan: dict[str, Any]) -> tuple[layout.Layout, list[int]]:
    """The hosts of a plan, and the ports at which they are dialled by each other."""
    count, data_dir = plan["hosts"], plan["data_dir"]
    kept = _doors_of(data_dir, count)
    free = ports.free(3 * count)
    clients, peers, doors = free[:count], free[count : 2 * count], kept or free[2 * count :]
    if not kept:
        write_whole(Path(data_dir, _DOORS), json.dumps(doors).encode(), 0o644)
        if count > 1:
            ports.keep(doors, os.path.join(data_dir, _DOORS))
    made = layout.plan(data_dir, count, plan["shards"], 1, 0, ["none"] * count, ())
    keys = os.path.join(data_dir, "keys")
    if count > 1 and not os.path.exists(keys):
        peer_keys.generate(keys)
    cluster = ",".join(f"host{i}=http://127.0.0.1:{door}" for i, door in enumerate(doors))
    found = []
    for host, client, peer, door in zip(made.hosts, clients, peers, doors, strict=True):
        url = f"http://127.0.0.1:{client}"
        own = (
            f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{door}", f"--initial-cluster={cluster}",
            *((f"--peer-key-file={keys}",) if count > 1 else ()), *_FLAGS, *plan["flags"],
        )  # fmt: skip
        found.append(replace(host, client_port=client, peer_port=peer, arguments=(*host.arguments, *own)))
    return layout.Layout(tuple(found), made.shards), doors


def _doors_of(data_dir: str, count: int) -> list[int]:
    """Those of an earlier start, by which hosts with data know each other; []: there are none.
    ConfigError."""
    had = len(list(Path(data_dir).glob("host*/member/identity.json")))
    if had == 0 or (had == count == 1 and _is_lone(data_dir)):
        return []  # nobody knows another
    path, known = Path(data_dir, _DOORS), f"the hosts of {data_dir} know each other by ports that"
    try:
        doors = json.loads(path.read_bytes())
        if len(doors) != count:
            raise ConfigError(f"{data_dir} has the data of {len(doors)} hosts, not of {count}")
        ports.take(doors)
    except FileNotFoundError:
        raise ConfigError(f"{known} {path} does not tell") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} has no list of ports: {error}") from None
    except OSError as error:
        raise ConfigError(f"{known} are taken: {error}") from None
    return list(doors)


def _is_lone(data_dir: str) -> bool:
    """Whether the earlier start was of one host, as far as one knows. It may have begun one of several."""
    try:
        return len(json.loads(Path(data_dir, _DOORS).read_bytes())) == 1
    except (OSError, TypeError, ValueError):
        return True


class Keeper:
    """The hosts, and what is done to them. :meth:`run` ends with the socket."""

    def __init__(self, plan: dict[str, Any], asking: socket.socket) -> None:
        self._data_dir, self._asking = str(plan["data_dir"]), asking
        self._layout, self._doors = planned(plan)
        self._links = Links([host.peer_port for host in self._layout.hosts], self._pids)
        self._cluster = local.LocalCluster(self._data_dir, self._layout, self._on_ready)
        self._frozen: set[int] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "kill": self._kill, "stop": self._stop, "restart": self._restart, "freeze": self._freeze,
            "thaw": self._thaw, "leader": self._leader,
        }

    async def run(self) -> int:
        """Run the hosts; the exit code."""
        if len(self._doors) > 1:
            await self._links.listen(self._doors)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._asking)
        running = asyncio.ensure_future(self._cluster.run())
        answering = asyncio.ensure_future(self._answer_all(reader))
        await asyncio.wait({running, answering}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():  # a host could not start
            self._tell({"id": 0, "error": "a host ended before all served:\n" + self._ends_of_logs()})
            self._writer.close()
        await asyncio.to_thread(self._kill_all)
        self._cluster.stop()
        code = await running
        answering.cancel()
        await self._links.close()
        return code

    async def _answer_all(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                request = json.loads(line)
                self._tell({"id": request["id"], **await self._answer(request)})

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "partition":
            await self._links.partition(request["groups"])
            return {}
        try:
            return await asyncio.to_thread(self._actions[request["do"]], request)
        except ConfigError as e:
            return {"error": str(e)}

    def _tell(self, answer: dict[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(json.dumps(answer).encode() + b"\n")

    def _on_ready(self) -> None:
        self._tell({"id": 0, "ports": [host.client_port for host in self._layout.hosts]})

    def _hosts(self, request: dict[str, Any]) -> list[layout.LocalHost]:
        return [self._layout.hosts[index] for index in request["hosts"]]

    def _processes(self, index: int) -> list[psutil.Process]:
        try:
            return local.processes_of(self._layout.hosts[index])
        except ConfigError:
            return []  # it is down

    def _pids(self, index: int) -> list[int]:
        return [process.pid for process in self._processes(index)]

    # each runs in a thread, one at a time

    def _kill(self, request: dict[str, Any]) -> dict[str, Any]:
        for host in self._hosts(request):
            local.kill(host)
            self._frozen.discard(host.index)
        return {}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        self._thaw(request)
        for host in self._hosts(request):
            local.stop(host)
        return {}

    def _restart(self, request: dict[str, Any]) -> dict[str, Any]:
        running = [host.index for host in self._hosts(request) if self._processes(host.index)]
        self._stop({"hosts": running})
        for host in self._hosts(request):
            self._start(host)
        for host in self._hosts(request) if request["wait_s"] else ():
            self._wait_ready(host, request["wait_s"])
        return {}

    def _start(self, host: layout.LocalHost) -> None:
        deadline = time.monotonic() + local.UP_LIMIT_S
        while True:
            try:
                local.start(self._data_dir, host)
                return
            except ConfigError as e:
                # it is gone, but its parent, this process, has yet to notice
                if "already running" not in str(e) or time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_S)

    def _wait_ready(self, host: layout.LocalHost, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not (local.status_of(host) or {}).get("ready"):
            if time.monotonic() > deadline:
                end = "\n".join(local.last_lines(host.log_file))
                late = f"host {host.index} does not serve after {limit_s:g} s"
                raise ConfigError(f"{late}; its log ends:\n{end}")
            time.sleep(_LOOK_S)

    def _freeze(self, request: dict[str, Any]) -> dict[str, Any]:
        for host in self._hosts(request):
            self._frozen.add(host.index)
            for process in local.processes_of(host):  # the supervisor first, so that it starts nothing
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
        return {}

    def _thaw(self, request: dict[str, Any]) -> dict[str, Any]:
        for host in self._hosts(request):
            for process in reversed(self._processes(host.index)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            self._frozen.discard(host.index)
        return {}

    def _leader(self, request: dict[str, Any]) -> dict[str, Any]:
        shard, deadline = request["shard"], time.monotonic() + request["wait_s"]
        while True:
            asked = [host for host in self._layout.hosts if host.index not in self._frozen]
            told = commands.status(layout.Layout(tuple(asked), self._layout.shards))["shards"]
            leaders = {one["shard"]: one["leader_host"] for one in told}
            if shard not in leaders:  # others may have been added, or have retired
                raise ConfigError(f"there is no shard {shard}: they are {', '.join(map(str, leaders))}")
            if (leader := leaders[shard]) is not None:
                return {"host": leader}
            if time.monotonic() > deadline:
                raise ConfigError(f"shard {shard} has no leader after {request['wait_s']:g} s")
            time.sleep(_LOOK_S)

    def _kill_all(self) -> None:
        for host in self._layout.hosts:
            with contextlib.suppress(ConfigError):
                local.kill(host)

    def _ends_of_logs(self) -> str:
        return "\n".join(line for host in self._layout.hosts for line in local.last_lines(host.log_file))


def main() -> int:
    """Run until the socket ends; the exit code."""
    plan = json.loads(sys.argv[2])
    data_dir = str(plan["data_dir"])
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        try:
            return asyncio.run(_run(plan, asking))
        except (OSError, ConfigError) as e:
            with contextlib.suppress(OSError):
                asking.sendall(json.dumps({"id": 0, "error": str(e)}).encode() + b"\n")
            return 1
        finally:
            for folder in (data_dir, *(os.path.join(data_dir, f"host{i}") for i in range(plan["hosts"]))):
                rundir.remove_run_dir(folder, rundir.run_dir_of(folder))  # what was killed did not tidy up
            if plan["remove"]:
                shutil.rmtree(data_dir, ignore_errors=True)


async def _run(plan: dict[str, Any], asking: socket.socket) -> int:
    return await Keeper(plan, asking).run()


if __name__ == "__main__":
    sys.exit(main())
