"""etcd's own benchmark tool as one more client: a cell's work as its command line, its report as a result."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import parent
from bench.load import run
from bench.load.spec import Spec
from bench.systems import servers

#: Builds the tool where it is not built yet, and runs it.
GO_BENCHMARK = Path(__file__).with_name("go_benchmark.sh")
COMMANDS = ("put", "range", "lease-keepalive")
_LIMIT_S = 120.0
_LEAST = 100  # operations of a run
_QUANTILES = ("50", "90", "95", "99")


def arguments(spec: Spec, total: int) -> list[str]:
    """What the tool is given for the work of a spec. ValueError for work that it does not have."""
    if spec.command not in COMMANDS or (spec.command == "range" and not spec.range_key):
        raise ValueError(f"etcd's tool does not do the work of {spec.command}")
    # etcd 3.5's followers may not know a lease yet that the tool has just granted
    endpoints = spec.endpoints[:1] if spec.command == "lease-keepalive" else spec.endpoints
    given = [f"--endpoints={','.join(endpoints)}", f"--conns={spec.conns}", f"--clients={spec.clients}",
             spec.command, f"--total={total}"]
    if spec.command == "put":
        given += [f"--key-size={spec.key_size_bytes}", f"--val-size={spec.val_size_bytes}",
                  f"--key-space-size={spec.key_space}"]
    elif spec.command == "range":
        given += [spec.range_key, f"--consistency={'s' if spec.serializable else 'l'}"]
    return given


def parse(said: str) -> dict[str, Any]:
    """``throughput_per_s``, ``duration_s`` and ``latency_ms`` of the tool's report.

    ValueError if it is incomplete, or reports errors.
    """
    def value(name: str, pattern: str) -> float:
        match = re.search(pattern, said)
        if match is None:
            raise ValueError(f"etcd's tool did not say its {name}: {said.strip()[-300:]}")
        return float(match[1])

    slowest = value("slowest", r"Slowest:\s+([\d.]+) secs")
    last = re.search(r"(?m)^\s*99\.9% in ([\d.]+) secs", said)  # of more than 1000 operations
    latency = {"mean": 1000 * value("mean", r"Average:\s+([\d.]+) secs"),
               "min": 1000 * value("fastest", r"Fastest:\s+([\d.]+) secs"),
               **{f"p{q}": 1000 * value(f"p{q}", rf"(?m)^\s*{re.escape(q)}% in ([\d.]+) secs")
                  for q in _QUANTILES},
               "p99.9": 1000 * (float(last[1]) if last else slowest), "max": 1000 * slowest}
    found = {"throughput_per_s": value("rate", r"Requests/sec:\s+([\d.]+)"),
             "duration_s": value("duration", r"Total:\s+([\d.]+) secs"), "latency_ms": latency}
    if errors := said.partition("Error distribution:")[2].split():
        raise ValueError(f"etcd's tool counted errors: {' '.join(errors)[:300]}")
    return found


@dataclass(slots=True)
class GoTool:
    """The tool at ``path``. It takes a number of operations, so a run of some seconds needs a rate.

    ``rates``: of the last run, by any name that the caller chooses."""

    path: Path = GO_BENCHMARK
    rates: dict[str, float] = field(default_factory=dict)

    async def run(self, spec: Spec, name: str, server_roots: Sequence[int] = ()) -> dict[str, Any]:
        """One run of about ``spec.duration_s``, with the fields of ``bench.load.run`` that comparisons show.

        RunError if the tool fails. The first run of a name is made twice, once briefly for its rate.
        """
        if name not in self.rates:
            brief = await self.total(spec, max(_LEAST, 20 * spec.clients), server_roots)
            self.rates[name] = brief["throughput_per_s"]
        result = await self.total(spec, max(_LEAST, int(self.rates[name] * spec.duration_s)), server_roots)
        self.rates[name] = result["throughput_per_s"]
        return result

    async def total(self, spec: Spec, total: int, server_roots: Sequence[int] = ()) -> dict[str, Any]:
        """The same of ``total`` operations."""
        before = servers.sample(server_roots)
        process = await asyncio.create_subprocess_exec(
            str(self.path), *arguments(spec, total), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=partial(parent.end_with, os.getpid()))
        try:
            async with asyncio.timeout(_LIMIT_S):
                said, complaints = await process.communicate()
        except TimeoutError:
            raise run.RunError(f"etcd's tool did not end within {_LIMIT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                # what the script has started holds the pipes, whose end is waited for
                servers.kill(servers.tree(process.pid))
                await process.wait()
        used = servers.spent(before, servers.sample(server_roots))
        if process.returncode:
            why = complaints.decode(errors="replace")[-300:]
            raise run.RunError(f"etcd's tool ended with code {process.returncode}: {why}")
        try:
            found = parse(said.decode(errors="replace"))
        except ValueError as error:
            raise run.RunError(str(error)) from None
        return {"command": f"{spec.command}, by etcd's tool", "operations": total, "errors": {}, **found,
                "timeline": [], "extra": {}, "client": {"limited": "no"}, "others_busy_percent": None,
                "server": run.of_servers(used, total, 0)}
