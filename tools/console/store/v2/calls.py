"""Requests of version 2, to muster or to an etcd up to 3.5 with ``--enable-v2``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from muster_client import MusterError, Tls, Unreachable

from tools.console.store import web
from tools.console.store.raw import ReadOnly

_TIMEOUT_S = 5.0
_SHARED_S = 1.0  # so old may be what browsers share
COMPARE_FAILED, NOT_FOUND, NODE_EXISTS = 101, 100, 105
_UNAUTHORIZED, _NOT_FOUND = 401, 404
Form = Mapping[str, str | int | bool | None]


class V2Error(MusterError):
    """The server's answer. ``code`` is the API's own; 0: it has none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Unauthorized(V2Error):
    """Version 2 has users, and this one may not."""


class NotServed(V2Error):
    """The hosts do not serve version 2."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``told``: the body. ``index``: of the store."""

    told: dict[str, Any]
    index: int


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
        self.user, self._tls, self._read_only = user, tls, read_only
        self._urls = web.urls(endpoints, tls)
        self._auth = httpx.BasicAuth(user, password) if user else None
        self._client: httpx.AsyncClient | None = None
        self._recent: dict[str, tuple[float, asyncio.Future[Reply]]] = {}

    async def close(self) -> None:
        """End all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def shared(self, path: str, query: Form) -> Reply:
        """The answer to a GET, perhaps one that somebody else got a moment ago. V2Error, Unreachable."""
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
        self, method: str, path: str, *, query: Form | None = None, form: Form | None = None, body: Any = None
    ) -> Reply:
        """The answer; ``path`` after ``/v2``. A request that was not sent goes to the next host. V2Error,
        Unreachable."""
        if self._read_only and method != "GET":
            raise ReadOnly("this console is read-only")
        if self._client is None:
            self._client = web.client(self._tls, _TIMEOUT_S)
        reasons: dict[str, str] = {}
        for url in self._urls:
            try:
                answer = await self._client.request(
                    method,
                    f"{url}/v2{quote(path)}",
                    params=_given(query),
                    data=_given(form) if form is not None else None,
                    json=body,
                    auth=self._auth,
                )
            except httpx.HTTPError as error:
                reasons[url] = str(error) or type(error).__name__
                sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if sent and method != "GET":
                    raise Unreachable(reasons, maybe_done=True) from None
            else:
                return _reply(answer)
        raise Unreachable(reasons)


def _given(form: Form | None) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (form or {}).items()
        if value is not None
    }


def _reply(answer: httpx.Response) -> Reply:
    try:
        told = answer.json() if answer.content else {}
    except ValueError:
        told = None
    if answer.status_code == _UNAUTHORIZED:
        raise Unauthorized(_message(told) or "Unauthorized")
    if told is None or (answer.status_code == _NOT_FOUND and not _message(told)):
        if answer.status_code == _NOT_FOUND:
            raise NotServed("these hosts do not serve version 2")
        raise V2Error(f"status {answer.status_code}")
    if answer.is_error:
        raise V2Error(_message(told) or f"status {answer.status_code}", int(told.get("errorCode", 0)))
    return Reply(told, int(answer.headers.get("x-etcd-index", 0)))


def _message(told: Any) -> str:
    """What an answer complains of: ``Key not found (/a)``."""
    if not isinstance(told, dict):
        return ""
    text, cause = str(told.get("message", "")), str(told.get("cause", ""))
    return f"{text} ({cause})" if cause else text
