"""Requests of version 2, to muster or to an etcd up to 3.5 with ``--enable-v2``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from muster_client import MusterError, Tls
from muster_client.v2 import Client, Given, NotServed

from tools.console.store.raw import ReadOnly

_TIMEOUT_S = 5.0  # of each host
_SHARED_S = 1.0  # so old may be what browsers share
Told = dict[str, Any]


class Version2:
    """Hosts, asked as one user of version 2; empty: as a guest."""

    def __init__(
        self,
        endpoints: Sequence[str],
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        *,
        read_only: bool = False,
    ) -> None:
        self.user, self._password = user, password
        self._endpoints, self._tls, self._read_only = endpoints, tls, read_only
        self._client: Client | None = None
        self._recent: dict[str, tuple[float, asyncio.Future[Told]]] = {}
        self._closed = False

    def close(self) -> None:
        """Ask nothing more: pages of before may still be open."""
        self._closed = True

    async def shared(self, path: str, query: Given) -> Told:
        """The answer to a GET, perhaps one that another page got a moment ago. V2Error, MusterError."""
        now_s = time.monotonic()
        for other, (since_s, _) in list(self._recent.items()):
            if now_s - since_s > _SHARED_S:
                del self._recent[other]
        if path not in self._recent:
            asked = asyncio.ensure_future(self.ask("GET", path, query=query))
            asked.add_done_callback(lambda one: one.cancelled() or one.exception())  # perhaps nobody waits
            self._recent[path] = now_s, asked
        return await asyncio.shield(self._recent[path][1])

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Given | None = None,
        form: Given | None = None,
        body: Any = None,
    ) -> Told:
        """The answer's body; ``path`` after ``/v2``. V2Error, MusterError."""
        if self._read_only and method != "GET":
            raise ReadOnly("this console is read-only")
        if self._closed:
            raise MusterError("the client is closed")
        if self._client is None:
            self._client = Client(
                self._endpoints,
                user=self.user,
                password=self._password,
                tls=self._tls,
                timeout=_TIMEOUT_S * len(self._endpoints),
            )
        answer = await self._client.ask(method, path, query=query, form=form, body=body)
        try:
            return answer.told()
        except NotServed:
            raise NotServed(0, "these hosts do not serve version 2") from None
