"""A snapshot, from a host's stream to a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import grpc

from muster_client.admin import part as parting
from muster_client.errors import MusterError, Unavailable, of_status
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method
from muster_client.wire.connections import Connection, pause_s
from muster_client.wire.http2.answers import CallError
from muster_client.wire.http2.call import Call
from muster_client.wire.retries import is_stale, passes

_SNAPSHOT = Method("Maintenance/Snapshot", pb.SnapshotResponse)
_ATTEMPTS = 4
# a host that has begun, and sends nothing for so long, is left: a busy one may make all again that it sent
_SILENT_S = 600.0
_CHECKSUM_BYTES = hashlib.sha256().digest_size
_PAGE_BYTES = 512  # a file of etcd is a multiple of it; the checksum follows

Answer = TypeVar("Answer")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Saved:
    """``size`` in bytes, with the checksum; ``sha256`` of what is before it; ``version``: the server's, ""
    where it does not say so."""

    path: Path
    endpoint: str
    size: int
    sha256: str
    version: str


class _Broken(Exception):
    """The stream ended; another one may do better."""


async def saved(caller: Caller, path: Path, endpoint: str, on_progress: OnProgress | None) -> Saved:
    """A file that is whole, or an error and none."""
    part = _Part(path)
    try:
        return await engine.run(_received(caller, part, endpoint, on_progress))
    except BaseException:
        part.drop()
        raise


class _Part:
    """The file while it is received. Its threads do nothing more to it once it is dropped, in whatever they
    were interrupted."""

    def __init__(self, path: Path) -> None:
        self.path, self._name = path, path.with_name(f"{path.name}.part")
        self._lock = threading.Lock()  # for what makes a file, or gives it its name
        self._file: BinaryIO | None = None
        self._dropped = False

    def begin(self) -> None:
        """It is empty."""
        with self._lock:
            if self._dropped:
                return
            if self._file is None:
                self._file = os.fdopen(parting.opened(self._name), "wb")
            self._file.seek(0)
            self._file.truncate()

    def write(self, blob: bytes, digest: hashlib._Hash, body: bytes) -> None:
        with self._lock:
            if self._file is not None:
                self._file.write(blob)
        digest.update(body)

    def place(self) -> None:
        """It is whole: it gets its name once it is on the disk."""
        if (file := self._file) is None:
            return
        file.flush()
        os.fsync(file.fileno())
        with self._lock:
            if self._dropped:
                return
            parting.placed(self._name, file.fileno(), self.path)
            self._file = None
            file.close()
        parting.lasting(self.path)

    def drop(self) -> None:
        """Nothing is left of it, unless it has its name."""
        with self._lock:
            file, self._file, self._dropped = self._file, None, True
            if file is not None:
                parting.dropped(self._name, file.fileno())
                with contextlib.suppress(OSError):  # of what it could not write
                    file.close()


async def _received(caller: Caller, part: _Part, endpoint: str, on_progress: OnProgress | None) -> Saved:
    for attempt in range(1, _ATTEMPTS + 1):
        await asyncio.to_thread(part.begin)
        try:
            found = await _attempt(caller, part, endpoint, on_progress)
            break
        except _Broken as broken:
            if attempt == _ATTEMPTS:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, str(broken)) from None
        await asyncio.sleep(pause_s(attempt))
    await asyncio.to_thread(part.place)
    return found


async def _attempt(caller: Caller, part: _Part, endpoint: str, on_progress: OnProgress | None) -> Saved:
    connection = await caller.connections.pick(time.monotonic() + caller.timeout_s, (), endpoint)
    size, digest, held, version = 0, hashlib.sha256(), b"", ""
    try:
        async with contextlib.aclosing(parts(caller, connection.name)) as told:
            async for answer in told:
                version = answer.version or version
                size += len(answer.blob)
                held += answer.blob  # the last bytes are the checksum of those before
                body, held = held[:-_CHECKSUM_BYTES], held[-_CHECKSUM_BYTES:]
                await asyncio.to_thread(part.write, answer.blob, digest, body)
                if on_progress is not None:
                    on_progress(size, answer.remaining_bytes)
    except MusterError as error:
        if passes(error) or is_stale(error):
            raise _Broken(str(error)) from None
        raise
    if size % _PAGE_BYTES != _CHECKSUM_BYTES:
        raise _Broken(f"{connection.name} sent {size} bytes, which is no snapshot with its checksum")
    if held != digest.digest():
        raise _Broken(f"the snapshot of {connection.name} does not have its checksum")
    return Saved(part.path, connection.name, size, digest.hexdigest(), version)


def parts(caller: Caller, endpoint: str = "") -> AsyncGenerator[pb.SnapshotResponse, None]:
    """Of a host's snapshot, as they come. MusterError. In any loop."""
    return streamed(caller, _SNAPSHOT, pb.SnapshotRequest(), endpoint)


async def streamed(
    caller: Caller, method: Method[Answer], request: Any, endpoint: str = ""
) -> AsyncGenerator[Answer, None]:
    """The many answers to one request, as they come. MusterError. In any loop."""
    deadline = time.monotonic() + caller.timeout_s
    connection = await engine.run(caller.connections.pick(deadline, (), endpoint))
    token = await engine.run(caller.token(deadline))
    opened: list[Call] = []
    try:
        await engine.run(_open(caller, method, request, connection, token, opened))
        # a snapshot is made first, for minutes; pings tell whether the host lives
        limit_s: float | None = None
        while (answer := await engine.run(_next(opened[0], limit_s))) is not None:
            limit_s = _SILENT_S
            yield answer
    except CallError as met:
        error = of_status(met.code, met.details, endpoint=connection.name)
        if is_stale(error):
            caller.renews(token)
        raise error from None
    except TimeoutError:
        connection.suspect()
        raise Unavailable(grpc.StatusCode.UNAVAILABLE, f"{connection.name} sends nothing") from None
    finally:  # behind the begin of a call of which this was not told any more
        engine.mail().post(lambda: _cancel(opened))


async def _open(
    caller: Caller, method: Method[Any], request: Any, connection: Connection, token: str, opened: list[Call]
) -> None:
    opened.append(caller.open(method, request, connection, token, needs_leader=False))
    opened[0].close_send()


def _cancel(opened: list[Call]) -> None:
    for call in opened:
        call.cancel()


async def _next(call: Call, limit_s: float | None) -> Any:
    async with asyncio.timeout(limit_s):  # wait_for of Python 3.11 swallows a cancellation
        return await call.read()
