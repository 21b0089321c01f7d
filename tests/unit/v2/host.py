"""A host of version 2 that answers as its test says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    line: str
    kind: str | None
    body: str
    authorization: str | None


Said = tuple[int, object]  # status, and a body: of JSON, or text as it is
BROKEN = object()  # a body before whose end the connection ends


@contextlib.contextmanager
def host(
    answers: Callable[[Asked], Said | None],
    index: int = 7,
    wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain,
) -> Iterator[tuple[str, list[Asked]]]:
    """A host's URL, and what it was asked. None: it ends the connection. ``index``: of its store. ``wrap``:
    what it does to each connection first."""
    seen: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            self.request = wrap(self.request)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            seen.append(Asked(f"{self.command} {self.path}", self.headers["Content-Type"], body,
                              self.headers["Authorization"]))  # fmt: skip
            said = answers(seen[-1])
            if said is None:
                return
            status, found = said
            broken = found is BROKEN
            text = "" if broken else found if isinstance(found, str) else json.dumps(found)
            told = text.encode()
            self.send_response(status)
            self.send_header("X-Etcd-Index", str(index))
            self.send_header("Content-Length", str(len(told) + broken))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_PUT = do_DELETE = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()
