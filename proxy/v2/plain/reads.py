"""Reads of files of the v2 tree, answered as their bytes come: without a request, a frame, or a handler.

Hot path: 5 us a read. A read is plain if

- it is ``GET /v2/keys/<key>`` and at most ``quorum=false``, the key spelt as etcd cleans it, without escapes;
- the block of its header fields was looked at before;
- the node of this host's replica is in this process, and has what this front has shown;
- there are no users of either version, and there is a file of 16 KiB at most.

Others go by ``requests`` or ``proxy.v2.keys``, which answer plain reads with the same bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from cluster.features.v2.tree import KEYS
from proxy.http.http1_plain import take
from proxy.shared.context import Context
from proxy.v2.keys import MOST_PATH
from proxy.v2.plain.heads import Heads
from proxy.v2.traffic import Traffic
from proxy.v2.waiting.feed import Feed

PLAIN_KEY = r"(?:/[0-9A-Za-z_~:@,=+$-][0-9A-Za-z_~:@,=+$.-]*)+"
_LINE = re.compile(rf"GET /v2/keys({PLAIN_KEY})(?:\?quorum=false)? HTTP/1\.1\r\n".encode())
_BLANK = b"\r\n\r\n"


class PlainReads:
    def __init__(self, context: Context, feed: Feed, traffic: Traffic, heads: Heads,
                 now_ns: Callable[[], int] = time.time_ns) -> None:
        self._router = context.router
        self._principals = context.principals
        self._feed = feed
        self._traffic = traffic
        self._heads = heads
        self._blocks = heads.blocks
        self._now_ns = now_ns

    def at_once(self, data: bytes, at: int) -> tuple[bytes, int] | None:
        """The answer to a plain read that begins there, and where the read ends; None: there is none."""
        line = _LINE.match(data, at)
        if line is None:
            return None
        begin = line.end()
        blank = data.find(_BLANK, begin)
        if blank < 0:
            return None
        end = blank + 4
        name = data[begin : blank + 2]
        block = self._blocks.get(name)
        if block is None:
            if name in self._blocks:
                return None
            block = self._heads.look(take(data[at:end], end, 0), name)
        router = self._router
        link = router.routes[0].replica
        near = link.near if link is not None else None
        if (
            block is None
            or not block.bare
            or near is None
            or self._principals.enabled
            or near.revision < router.highest  # monotone; it may apply what enables users
            or near.guarded
            or not router.recent.stands(link)
            or begin - at > MOST_PATH
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
        self._traffic.done("GET", came)
        return self._heads.answer(block.begin, index, raft_index, term, body, now_ns), end
