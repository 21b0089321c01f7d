"""Reads of files of the v2 tree, answered as their bytes come: without a request, a frame, or a handler.

Hot path: 5 us a read from what came to what leaves (decision 91). A read is plain if

- it is ``GET /v2/keys/<key>`` and at most ``quorum=false``, the key spelt as etcd cleans it, without escapes;
- the block of its header fields was looked at before: clients send the same one again and again;
- the node of this host's replica is in this process, and has what this front has shown;
- there are no users of either version, and a file is there.

All else goes the usual way (``proxy.v2.keys``), which answers a plain read with the same bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from cluster.features.v2.tree import KEYS
from proxy.http.http1_plain import date, take
from proxy.routing.router import Router
from proxy.shared.context import Context
from proxy.v2.call import JSON
from proxy.v2.traffic import Traffic
from proxy.v2.waiting.feed import Feed

_NS = 10**9
_MOST_PATH = 4096  # as proxy.v2.keys has it
_LINE = re.compile(
    rb"GET /v2/keys((?:/[0-9A-Za-z_~:@,=+$-][0-9A-Za-z_~:@,=+$.-]*)+)(?:\?quorum=false)? HTTP/1\.1\r\n"
)
_BLANK = b"\r\n\r\n"
_KEPT, _KEPT_BYTES = 512, 1024  # blocks of header fields, and the largest


class PlainReads:
    """Of one front."""

    def __init__(
        self, context: Context, feed: Feed, traffic: Traffic,
        added: Callable[[dict[str, str]], list[tuple[str, str]] | None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        """``added``: what an answer to these header fields has before its own; None: it may be refused."""
        self._router: Router = context.router
        self._principals = context.principals
        self._feed = feed
        self._traffic = traffic
        self._added = added
        self._now_ns = now_ns
        self._cluster = f"X-Etcd-Cluster-Id: {context.common.cluster_id:x}\r\n".encode()
        self._blocks: dict[bytes, bytes] = {}  # how the answer to such a block begins; empty: it is not plain
        self._shown: tuple[bytes, int, int, int, int] | None = None  # what the next two were made of
        self._head = self._tail = b""

    def at_once(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """The answer to a plain read that begins there, and where it ends; None: there is none."""
        line = _LINE.match(data, at)
        if line is None:
            return None
        begin = line.end()
        blank = data.find(_BLANK, begin)
        if blank < 0:
            return None
        end = blank + 4
        start = self._blocks.get(data[begin : blank + 2])
        if start is None:
            start = self._look(data[at:end], data[begin : blank + 2])
        router = self._router
        link = router.routes[0].replica
        near = link.near if link is not None else None
        if (
            not start
            or near is None
            or self._principals.enabled
            or near.guarded
            or near.revision < router.highest  # monotone
            or not router.recent.knows
            or begin - at > _MOST_PATH
        ):
            return None
        came = self._traffic.now()
        now_ns = self._now_ns()
        feed = self._feed
        found = near.v2_file(KEYS + line[1], feed.highest, now_ns)
        if found is None:
            return None
        index, raft_index, term, body = found
        if index > feed.highest:
            feed.highest = index
        shown = (start, index, raft_index, term, now_ns // _NS)
        if shown != self._shown:
            self._shown = shown
            self._head = start + (
                f"X-Etcd-Index: {index}\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {term}\r\n"
                f"content-type: {JSON}\r\ncontent-length: "
            ).encode()
            self._tail = f"\r\ndate: {date(shown[-1])}\r\n\r\n".encode()
        self._traffic.file_read(came)
        return b"%b%d%b%b" % (self._head, len(body), self._tail, body), end

    def _look(self, request: bytes, block: bytes) -> bytes:
        """How the answer begins to a request with this block; empty: it is not plain."""
        if len(block) > _KEPT_BYTES:
            return b""
        plain = take(request, len(request), 0)
        start = b""
        if plain is not None and (added := self._added(plain.headers)) is not None:
            fields = "".join([f"{name}: {value}\r\n" for name, value in added]).encode("latin-1")
            start = b"HTTP/1.1 200 OK\r\n" + fields + self._cluster
        if len(self._blocks) >= _KEPT:
            self._blocks.clear()
        self._blocks[block] = start
        return start
