"""The tree of keys."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import posixpath
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

import h11

from muster_client.errors import DeadlineExceeded, Unreachable
from muster_client.v2.errors import EventIndexCleared, V2Error, too_deep
from muster_client.v2.http import Answer, Request, asked
from muster_client.wire.connections import pause_s
from muster_client.wire.endpoints import Tls

TIMEOUT_S = 30.0
_FORM = "application/x-www-form-urlencoded"
_MOST_TTL_S = 1 << 32
Given = Mapping[str, str | int | bool | None]  # None is left out


@dataclass(frozen=True, slots=True)
class Node:
    """A key, or a directory with ``nodes``. ``ttl`` in seconds; None: it stays."""

    key: str
    value: str | None
    directory: bool
    created: int
    modified: int
    ttl: int | None
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Of a call. ``action`` in the server's words; ``index``: of the store."""

    action: str
    node: Node
    previous: Node | None
    index: int


def _node_of(told: dict[str, Any]) -> Node:
    return Node(
        told.get("key", "/"), told.get("value"), told.get("dir", False), told.get("createdIndex", 0),
        told.get("modifiedIndex", 0), told.get("ttl"), tuple(map(_node_of, told.get("nodes", ()))))


class Client:
    """A client of the version 2 API of muster, and of etcd up to 3.5 with ``--enable-v2``.

    ``endpoints``: URLs, by commas or in a list. A call that was not sent goes to the next endpoint; one that
    only reads is tried again, too. Other errors have ``maybe_done``. ``timeout``: seconds for each call; an
    endpoint that stands still gets its share of them. Users: Unauthorized.
    """

    def __init__(
        self, endpoints: str | Sequence[str] = "http://127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | None = None, timeout: float = TIMEOUT_S,
    ) -> None:
        names = endpoints.split(",") if isinstance(endpoints, str) else endpoints
        scheme = "http" if tls is None else "https"
        self._urls = [name if "://" in name else f"{scheme}://{name}" for name in map(str.strip, names)]
        self._timeout, self._turns = timeout, itertools.count()
        self._headers: list[tuple[str, str]] = []
        if user:
            told = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers.append(("Authorization", f"Basic {told}"))
        if tls is not None:
            tls.context()  # an error of the files is told here; each connection reads them again
        self._tls = tls or Tls()

    async def ask(
        self, method: str, path: str, *, query: Given | None = None, form: Given | None = None,
        body: Any = None, timeout: float | None = None,
    ) -> Answer:
        """The whole answer for a path after ``/v2``: ``told()`` has its JSON, or raises what it refuses.
        ``body``: of JSON. ``timeout``: seconds, None: the client's, inf: none. Unreachable, DeadlineExceeded.
        """
        limit = self._timeout if timeout is None else timeout
        given = _encoded(query)
        request = Request(
            method, f"/v2{quote(path)}?{given}".rstrip("?"),
            [*self._headers, ("Content-Type", _FORM if body is None else "application/json")],
            _encoded(form).encode() if body is None else json.dumps(body).encode(), waits=limit == math.inf,
            from_now=bool(query and query.get("wait") and not query.get("waitIndex")))
        try:
            async with asyncio.timeout(None if request.waits else limit):
                return await self._tried(
                    request, (self._timeout if request.waits else limit) / len(self._urls))
        except TimeoutError:
            raise DeadlineExceeded(
                "no answer in time", maybe_done=request.sent and method != "GET") from None

    async def get(
        self, key: str, *, recursive: bool = False, sorted: bool = False, quorum: bool = True
    ) -> Result:
        """A key, or a directory; ``quorum``: as of now, else perhaps an older state. KeyNotFound."""
        return await self._call("GET", key, {"recursive": recursive, "sorted": sorted, "quorum": quorum})

    async def set(
        self, key: str, value: str | None, *, ttl: int | None = None, directory: bool = False,
        exists: bool | None = None, previous_value: str | None = None, previous_index: int = 0,
    ) -> Result:
        """Write a key, or make a directory, for ``ttl`` seconds, 2^32 at most. ``exists``: only if it is
        there, or not; ``previous_…``: only if it is so. CompareFailed, NodeExists, KeyNotFound."""
        return await self._call("PUT", key, {
            "prevExist": exists, "prevValue": previous_value, "prevIndex": previous_index or None},
            {"value": value, "ttl": ttl, "dir": directory or None})

    async def refresh(self, key: str, ttl: int) -> Result:
        """Let a key live for ``ttl`` seconds from now on; waits are not told."""
        return await self._call("PUT", key, {"prevExist": True}, {"ttl": ttl, "refresh": True})

    async def append(self, directory: str, value: str, *, ttl: int | None = None) -> Result:
        """A key in a directory, named in the order of arrival."""
        return await self._call("POST", directory, {}, {"value": value, "ttl": ttl})

    async def delete(
        self, key: str, *, recursive: bool = False, directory: bool = False,
        previous_value: str | None = None, previous_index: int = 0,
    ) -> Result:
        """Delete a key, an empty ``directory``, or all below one. KeyNotFound, CompareFailed."""
        return await self._call("DELETE", key, {
            "recursive": recursive or None, "dir": directory or None, "prevValue": previous_value,
            "prevIndex": previous_index or None})

    async def wait(self, key: str, *, index: int = 0, recursive: bool = False) -> Result:
        """The first change at ``index`` or behind it; 0: from now on, but for what the hosts forget while
        none lets it wait. It has no time limit. EventIndexCleared, of an ``index``, unless a key, which is no
        directory, shows that it has not changed; Unreachable, where no endpoint answers for ``timeout``."""
        since = index
        while True:
            try:
                told = await self._call("GET", key, {
                    "wait": True, "recursive": recursive, "waitIndex": since or None}, timeout=math.inf)
            except EventIndexCleared as error:
                passed = await self._unchanged(key, since) if index else error.index
                if not passed:
                    raise
                since = passed + 1
                continue
            if told.action:
                return told
            if told.index:  # 0: the wait had not begun
                since = since or told.index + 1

    async def _unchanged(self, key: str, since: int) -> int:
        """The index up to which nothing has happened to a key from ``since`` on, as it shows itself; 0: that
        is unknown, as of what was deleted, or of a directory, which does not show its updates."""
        try:
            found = await self.get(key)
        except (V2Error, Unreachable, DeadlineExceeded):
            return 0
        return 0 if found.node.directory or found.node.modified >= since else found.index

    async def watch(self, key: str, *, index: int = 0, recursive: bool = False) -> AsyncIterator[Result]:
        """Each change, in order. EventIndexCleared, where one may be missing: it was too slow, or the wait
        for a quiet directory of a busy store was interrupted, as by a host's stop."""
        if not index:
            try:
                index = (await self.get(key)).index + 1
            except V2Error as error:
                if not error.index:
                    raise
                index = error.index + 1
        while True:
            told = await self.wait(key, index=index, recursive=recursive)
            yield told
            index = told.node.modified + 1

    async def _call(
        self, method: str, key: str, query: Given, form: Given | None = None, timeout: float | None = None
    ) -> Result:
        if form is not None and int(form.get("ttl") or 0) > _MOST_TTL_S:
            raise ValueError("a ttl of more than 136 years, which hosts may take for one in the past")
        # hosts answer 301 to others; escaped, for NUL ends a path there before Python 3.11.5
        path = unquote(posixpath.normpath(quote(f"/{key.lstrip('/')}")))
        return _result(await self.ask(method, f"/keys{path}", query=query, form=form, timeout=timeout))

    async def _tried(self, request: Request, share_s: float) -> Answer:
        """At one endpoint after the other, as far as that is safe. A wait goes on, unless none lets it wait
        for the client's ``timeout``."""
        reasons: dict[str, str] = {}
        tries, until = 0, time.monotonic() + self._timeout
        for turn in itertools.count(next(self._turns)):
            url, answer = self._urls[turn % len(self._urls)], None
            try:
                answer = await asked(url, request, self._tls, share_s)
            except (OSError, h11.RemoteProtocolError) as error:
                reasons[url] = str(error) or "no answer in time"
                if request.sent and request.method != "GET":
                    raise Unreachable(reasons, maybe_done=True) from None
            else:
                if answer.status < 500 or request.method != "GET":
                    return answer
                reasons[url] = f"status {answer.status}"
            tries += 1
            if request.waited():
                tries, until = 1, time.monotonic() + self._timeout
            if time.monotonic() >= until if request.waits else tries == 2 * len(self._urls):
                if answer is None:
                    raise Unreachable(reasons)
                return answer
            await asyncio.sleep(pause_s(tries))
        raise AssertionError("the loop ends otherwise")


def _encoded(given: Given | None) -> str:
    """In the form of a query; None is left out."""
    return urlencode({name: str(one).lower() if isinstance(one, bool) else one
                      for name, one in (given or {}).items() if one is not None})


def _result(answer: Answer) -> Result:
    """Of an answer, or its error."""
    told = answer.told()
    if not answer.body:  # a wait that the server gave up
        return Result("", _node_of({}), None, answer.index)
    if "node" not in told:
        raise V2Error(0, f"no node in {told}")
    previous = told.get("prevNode")
    try:
        node = _node_of(told["node"])
        return Result(
            told["action"], node, None if previous is None else _node_of(previous), answer.index)
    except RecursionError:
        raise too_deep() from None
