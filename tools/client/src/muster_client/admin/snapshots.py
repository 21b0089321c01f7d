"""A snapshot, from a host's stream to a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc

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
_SILENT_S = 60.0  # a host that has begun, and sends nothing for so long, is left
_CHECKSUM_BYTES = hashlib.sha256().digest_size
_PAGE_BYTES = 512  # a file of etcd is a multiple of it; the checksum follows

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
    part = path.with_name(f"{path.name}.part")
    descriptor = await asyncio.to_thread(os.open, part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            found = await engine.run(_received(caller, path, file, endpoint, on_progress))
            await asyncio.to_thread(_synced, file)
        await asyncio.to_thread(_placed, part, path)
        return found
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _placed(part: Path, path: Path) -> None:
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def _received(
    caller: Caller, path: Path, file: BinaryIO, endpoint: str, on_progress: OnProgress | None
) -> Saved:
    for attempt in range(1, _ATTEMPTS + 1):
        file.seek(0)
        file.truncate()
        try:
            return await _attempt(caller, path, file, endpoint, on_progress)
        except _Broken as broken:
            if attempt == _ATTEMPTS:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, str(broken)) from None
        await asyncio.sleep(pause_s(attempt))
    raise AssertionError("the loop ends otherwise")


async def _attempt(
    caller: Caller, path: Path, file: BinaryIO, endpoint: str, on_progress: OnProgress | None
) -> Saved:
    connection = await caller.connections.pick(time.monotonic() + caller.timeout_s, (), endpoint)
    size, digest, held, version = 0, hashlib.sha256(), b"", ""
    try:
        async with contextlib.aclosing(parts(caller, connection.name)) as told:
            async for answer in told:
                version = answer.version or version
                size += len(answer.blob)
                held += answer.blob  # the last bytes are the checksum of those before
                body, held = held[:-_CHECKSUM_BYTES], held[-_CHECKSUM_BYTES:]
                await asyncio.to_thread(_written, file, answer.blob, digest, body)
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
    return Saved(path, connection.name, size, digest.hexdigest(), version)


def _written(file: BinaryIO, blob: bytes, digest: hashlib._Hash, body: bytes) -> None:
    file.write(blob)
    digest.update(body)


async def parts(caller: Caller, endpoint: str = "") -> AsyncGenerator[pb.SnapshotResponse, None]:
    """Of a host's snapshot, as they come. MusterError. In any loop."""
    deadline = time.monotonic() + caller.timeout_s
    call, token = None, ""
    connection = await engine.run(caller.connections.pick(deadline, (), endpoint))
    try:
        token = await engine.run(caller.token(deadline))
        call = await engine.run(_opened(caller, connection, token))
        limit_s: float | None = None  # it makes the snapshot first, for minutes; pings tell whether it lives
        while (answer := await engine.run(asyncio.wait_for(call.read(), limit_s))) is not None:
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
    finally:
        if call is not None:
            engine.mail().post(call.cancel)


async def _opened(caller: Caller, connection: Connection, token: str) -> Call:
    call = caller.open(_SNAPSHOT, pb.SnapshotRequest(), connection, token, needs_leader=False)
    call.close_send()
    return call
