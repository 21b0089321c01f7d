"""A call by HTTP/2 whose requests come while its answers leave, as in etcd: the client's side stays open."""

from __future__ import annotations

import re

from cluster.faults import HANDLER_MISTAKES
from proxy.gateway.paths import Target
from proxy.gateway.room import Room
from proxy.gateway.talk import TalkedCall
from proxy.grpc.inner import Served
from proxy.http.requests import HttpRequest

_DEEPEST = 10_000  # of an object that the decoder takes, as Go's
_MARKS = re.compile(rb'(?s:\\.)|["{}\[\]]')


class Objects:
    """Cuts a text behind its whole objects. Whatever else stands between them is no request, and goes on as
    it comes, for the error that it makes."""

    __slots__ = ("_at", "_depth", "_quoted", "_text")

    def __init__(self) -> None:
        self._text = bytearray()  # of an object that is not whole
        self._at = 0  # looked at as far as here
        self._depth = 0
        self._quoted = False

    def __len__(self) -> int:
        return len(self._text)

    def take(self, data: bytes) -> bytes:
        """What is whole now."""
        text = self._text
        text += data
        cut, last = 0, self._at
        for at, mark in [(found.end(), found[0]) for found in _MARKS.finditer(text, last)]:
            last = at
            if self._quoted:
                self._quoted = mark != b'"'
            elif mark == b'"':
                self._quoted = True
            elif mark in (b"{", b"["):
                self._depth += 1
                if self._depth > _DEEPEST:  # no object: it goes on for its error
                    self._depth = 0
                    break
            elif mark in (b"}", b"]"):
                self._depth = max(self._depth - 1, 0)
                if not self._depth:
                    cut = at
        if not self._depth:  # blanks go on, too: looked at again with each piece, they would take ever longer
            cut, self._quoted = len(text), False
        escapes = last < len(text) and text.endswith(b"\\")  # what comes next
        self._at = max(len(text) - escapes - cut, 0)
        whole = bytes(text[:cut])
        del text[:cut]
        return whole

    def rest(self) -> bytes:
        return bytes(self._text)


class FollowedCall(TalkedCall):
    __slots__ = ("_last", "_objects")
    _END = b""

    def __init__(self, room: Room, request: HttpRequest, target: Target, metadata: dict[bytes, bytes],
                 registry: Served, timeout_s: float | None) -> None:
        super().__init__(room, request, target, metadata, registry, timeout_s)
        self._objects = Objects()
        self._last = False  # the client has ended its side

    def more(self, data: bytes, ended: bool) -> int:
        """A piece of the body. Returns how many bytes of it are no whole request."""
        if self._deaf or self.gone or self.closed:
            return 0
        try:
            whole = self._objects.take(data)
            if ended:
                self._last = True
                whole += self._objects.rest()
            if whole.strip():
                self.feed(whole)
            elif ended and not self._reading:
                self._end_requests()
        except HANDLER_MISTAKES as error:
            self._deaf = True
            self._fault(error)
        return len(self._objects)

    def _next(self) -> bool:
        if super()._next():
            return True
        if self._last and not self._reading:
            self._end_requests()
        return False
