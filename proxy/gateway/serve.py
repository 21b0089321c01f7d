"""The JSON gateway's paths: the call of a request, the header fields that go along, and refusals."""

from __future__ import annotations

import re

from proxy.gateway.calls import GatewayCall
from proxy.gateway.decode import check_binary_header
from proxy.gateway.encode import error, http_status
from proxy.gateway.follow import FollowedCall
from proxy.gateway.go_json import Mistake
from proxy.gateway.paths import TARGETS
from proxy.gateway.room import Room
from proxy.gateway.talk import Conversation, TalkedCall
from proxy.grpc import wire
from proxy.grpc.inner import Served
from proxy.http.requests import FORM, JSON, HttpRequest, canonical
from proxy.http.upgrade import wanted

_UNITS_NS = {
    "H": 3_600_000_000_000, "M": 60_000_000_000, "S": 1_000_000_000, "m": 1_000_000, "u": 1_000, "n": 1,
}
_TIMEOUT = re.compile(r"[+-]?[0-9]{1,18}")
_PERMANENT = frozenset((
    "accept", "accept-charset", "accept-language", "accept-ranges", "authorization", "cache-control",
    "content-type", "cookie", "date", "expect", "from", "host", "if-match", "if-modified-since",
    "if-none-match", "if-schedule-tag-match", "if-unmodified-since", "max-forwards", "origin", "pragma",
    "referer", "user-agent", "via", "warning",
))
_PREFIX = "grpc-metadata-"


class Gateway:
    def __init__(self, registry: Served, room: Room) -> None:
        self._registry = registry
        self._room = room

    def serve(self, request: HttpRequest) -> None:
        if wanted(request):
            self._converse(request)
            return
        target = TARGETS.get(request.path)
        method = request.method
        override = request.headers.get("x-http-method-override", "")
        form = override != "" and method == "POST" and request.headers.get("content-type") == FORM
        if form:
            method = override.upper()
            request.body = b""  # a form's
        if target is None:
            request.error(404, b"Not Found\n")
        elif method != "POST":
            request.error(405, b"Method Not Allowed\n")
        else:
            text = request.headers.get("grpc-timeout", "")
            timeout_s = _timeout_s(text) if text else None
            mistake = _binary_mistake(request.headers)
            if text and timeout_s is None:
                mistake = f"invalid grpc-timeout: {text}"
            if mistake:
                body = error(wire.INVALID_ARGUMENT, mistake).encode()
                request.respond(http_status(wire.INVALID_ARGUMENT), body, content_type=JSON)
                return
            metadata, limit_s = metadata_of(request), timeout_s or None
            if request.unfinished and not form:
                followed = FollowedCall(self._room, request, target, metadata, self._registry, limit_s)
                request.follow(followed.more)
                return
            GatewayCall(self._room, request, target, metadata, self._registry, limit_s).begin()

    def _converse(self, request: HttpRequest) -> None:
        """A request by WebSocket, with messages as long as the client sends them."""
        talk = Conversation(request)
        if not talk.accept():
            return
        target = TARGETS.get(request.path)
        if target is None:
            talk.error(404, b"Not Found\n")
        else:
            talk.call = TalkedCall(self._room, talk, target, metadata_of(talk), self._registry)


def metadata_of(request: HttpRequest) -> dict[bytes, bytes]:
    """The call's metadata: ``Grpc-Metadata-K`` is ``k``, ``Authorization`` is itself, HTTP's own get a
    prefix."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name == "authorization":
            found[name] = value
        if name in _PERMANENT:
            found[f"grpcgateway-{name}"] = value
        elif name.startswith(_PREFIX):
            found[name[len(_PREFIX) :]] = value
    return {name.encode("latin-1"): value.encode("latin-1", "replace") for name, value in found.items()}


def _binary_mistake(headers: dict[str, str]) -> str:
    """What grpc-gateway finds wrong with the metadata that it has to decode; no method here reads any."""
    for name, value in headers.items():
        if name.endswith("-bin") and name.startswith(_PREFIX):
            try:
                for each in value.split(", "):  # of a repeated field
                    check_binary_header(each.encode("latin-1", "replace"))
            except Mistake as mistake:
                return f"invalid binary header {canonical(name)}: {mistake}"
    return ""


def _timeout_s(text: str) -> float | None:
    """Seconds; 0: no limit; None: no valid time. More than 290 years wrap around, as Go's durations do."""
    unit, number = _UNITS_NS.get(text[-1:]), text[:-1]
    if unit is None or not _TIMEOUT.fullmatch(number):
        return None
    return ((int(number) * unit + (1 << 63)) % (1 << 64) - (1 << 63)) / 1e9
