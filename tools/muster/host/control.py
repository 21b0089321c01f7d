"""The control socket of a supervisor: one JSON object a line asks, one answers.

``{"do": "status"}``, ``{"do": "ready"}``, ``{"do": "kill", "kind": "node", "index": 0}``, ``{"do": "stop"}``.
The socket's directory is this user's only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tools.muster.machine.zmtp.own_user import process_of

LONGEST_LINE = 1_048_576
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Unreachable(Exception):
    """No answer on the socket: the process is down, or stuck."""


def socket_of(run_dir: str) -> str:
    return os.path.join(run_dir, "control.sock")


async def listen(path: str, handler: Handler) -> asyncio.Server:
    """Serve requests at ``path``, replacing the socket of a process that has ended."""
    if os.path.exists(path):
        os.unlink(path)  # the run directory is locked: no other process listens there

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    request = json.loads(line)
                    answer = await handler(request)
                except (ValueError, KeyError, TypeError) as e:
                    answer = {"error": f"bad request: {e!r}"}
                except OSError as e:  # as of a full disk: who asks can mend it
                    answer = {"error": f"{e.strerror or e}{f': {e.filename}' if e.filename else ''}"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client left, or sent a line without end
        except asyncio.CancelledError:
            pass  # the server stops; a cancelled task would be logged as an error
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve, path, limit=LONGEST_LINE)


def ask(path: str, request: dict[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
    """One request to another process. Unreachable if there is no answer in time."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
            s.settimeout(timeout_s)
            s.connect(path)
            s.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                chunk = s.recv(65_536)
                if not chunk:
                    raise Unreachable(f"{path}: closed without an answer")
                data += chunk
    except OSError as e:
        raise Unreachable(f"{path}: {e}") from None
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer


def shares(path: str, kind: str) -> bool:
    """Whether the process that listens at ``path`` is known to share a namespace with this one: "net" for
    ports, "mnt" for files."""
    cloexec = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, cloexec) as s:
        s.settimeout(5.0)
        s.connect(path)
        return os.path.samefile(f"/proc/{process_of(s)}/ns/{kind}", f"/proc/self/ns/{kind}")
    return False
