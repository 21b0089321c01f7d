"""A well-behaved client in a process of its own: how long its requests take, turn by turn.

It asks at times that do not depend on the answers (an open loop): a request that is due while the server
stands still waits from then on, so a stall of a second is seen by every request of that second, as by a crowd
of clients. Puts on every shard and linearizable reads take turns.

``Bystander(endpoint, keys)`` starts the process; ``python -m tests.faults.attacking.bystander`` is the
process.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.cluster.local_cluster import ROOT

RATE = 80.0  # requests a second: 160 in a turn of two seconds, of which the p99 is the second slowest
ANSWER_LIMIT_S = 20.0


@dataclass(frozen=True)
class Turn:
    """What the client saw in one turn."""

    latencies_s: list[float]
    failures: list[str]

    @property
    def p99_s(self) -> float:
        """The latency that one request in a hundred exceeds."""
        ordered = sorted(self.latencies_s)
        return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0

    @property
    def slowest_s(self) -> float:
        """The slowest request."""
        return max(self.latencies_s, default=0.0)


class Bystander:
    """The process, from entering to leaving. Between :meth:`begin` and :meth:`end` it asks."""

    def __init__(self, endpoint: str, keys: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.attacking.bystander", endpoint, *keys], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> Bystander:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self) -> None:
        """Ask from now on."""
        self._say("begin")

    def end(self) -> Turn:
        """Ask no more; what came of the requests that were due, once all are answered."""
        self._say("end")
        assert self._process.stdout is not None
        return Turn(**json.loads(self._process.stdout.readline()))

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


class _Asking:
    """Requests at their times."""

    def __init__(self, endpoint: str, keys: list[str]) -> None:
        import grpc.aio  # only in the process itself

        from cluster.pb import rpc_pb2

        self._error = grpc.aio.AioRpcError
        self._channel = grpc.aio.insecure_channel(endpoint)
        put = self._channel.unary_unary("/etcdserverpb.KV/Put")
        get = self._channel.unary_unary("/etcdserverpb.KV/Range")
        self._kinds = [kind for key in keys for kind in (
            (put, rpc_pb2.PutRequest(key=key.encode(), value=bytes(64)).SerializeToString()),
            (get, rpc_pb2.RangeRequest(key=key.encode()).SerializeToString()))]
        self._latencies: list[float] = []
        self._failures: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._asking = False

    async def run(self) -> None:
        """Follow the words on standard input."""
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        issuer: asyncio.Task[None] | None = None
        while word := (await lines.readline()).strip():
            if word == b"begin":
                self._asking = True
                issuer = asyncio.create_task(self._issue())
            elif issuer is not None:
                self._asking = False
                await issuer
                await asyncio.gather(*self._tasks)
                print(json.dumps({"latencies_s": self._latencies, "failures": self._failures}), flush=True)
                self._latencies, self._failures, self._tasks = [], [], []

    async def _issue(self) -> None:
        due, number = time.monotonic(), 0
        while self._asking:
            call, body = self._kinds[number % len(self._kinds)]
            self._tasks.append(asyncio.create_task(self._one(call, body, due)))
            number += 1
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self, call: object, body: bytes, due: float) -> None:
        try:
            await call(body, timeout=ANSWER_LIMIT_S)  # type: ignore[operator]
        except self._error as e:
            self._failures.append(f"{e.code().name}: {e.details()}")
        else:
            self._latencies.append(time.monotonic() - due)


async def _main() -> None:
    await _Asking(sys.argv[1], sys.argv[2:]).run()  # a channel belongs to the loop in which it is made


if __name__ == "__main__":
    asyncio.run(_main())
