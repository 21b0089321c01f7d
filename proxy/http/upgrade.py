"""WebSocket on a connection of HTTP/1.1 (RFC 6455), on ``wsproto``.

Own code is the handshake alone, which answers wrong ones with the status of Go's ``gorilla/websocket``, as
etcd does. No extension is agreed on.
"""

from __future__ import annotations

from collections.abc import Callable

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from proxy.http.memory import PATIENT_BYTES
from proxy.http.requests import Below, HttpRequest

TURN_EVENTS = 32  # of one connection in a turn of the loop: each may be a watch


def wanted(request: HttpRequest) -> bool:
    fields = request.headers
    return _names(fields.get("connection", ""), "upgrade") and _names(fields.get("upgrade", ""), "websocket")


def _names(value: str, name: str) -> bool:
    return any(part.strip().lower() == name for part in value.split(","))


def accept(request: HttpRequest, receive: Callable[[bytes], None]) -> WebSocket | None:
    """Take up the WebSocket that a request asks for; ``receive`` gets its messages. None: it asks wrongly,
    and is answered."""
    fields, refused = request.headers, 0
    key = fields.get("sec-websocket-key", "")
    if request.method != "GET":
        refused = 405
    elif not _names(fields.get("sec-websocket-version", ""), "13") or not key.strip():
        refused = 400
    else:
        answer = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", generate_accept_token(key.encode("latin-1")).decode()),
        ]
        if fields.get("sec-websocket-protocol", "").startswith("Bearer"):
            answer.append(("Sec-WebSocket-Protocol", "Bearer"))
        socket = WebSocket(receive)
        if request.switch(answer, socket):
            return socket
        refused = 400  # HTTP/2, or HTTP/1.0
    reason = "Method Not Allowed\n" if refused == 405 else "Bad Request\n"
    request.error(refused, reason.encode(), [("Sec-Websocket-Version", "13")])
    return None


class WebSocket:
    """``receive`` gets each message that is not empty, text or bytes alike."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._machine = Connection(ConnectionType.SERVER)
        self._message = bytearray()  # that is not whole
        self._below: Below | None = None  # None: it is closed
        self._limit_bytes = 0
        self._max_unsent_bytes = 0
        self.held_bytes = 0  # of a message that is not whole

    def send(self, text: str) -> None:
        if self._below is not None:
            self._below.write(self._machine.send(TextMessage(data=text)))

    def close(self) -> None:
        """End it. No close frame goes before, as in etcd: a client may not reconnect after a normal end."""
        below, self._below = self._below, None
        if below is not None:
            below.close()

    # -- from the connection: see ``proxy.http.requests.Switched``

    def begin(self, below: Below, limit_bytes: int, max_unsent_bytes: int) -> None:
        self._below, self._limit_bytes, self._max_unsent_bytes = below, limit_bytes, max_unsent_bytes

    def received(self, data: bytes) -> None:
        if self._below is None:
            return
        if not data:
            self.close()
            return
        self._machine.receive_data(data)
        self.go_on()

    def go_on(self) -> None:
        events = self._machine.events()
        for _ in range(TURN_EVENTS):
            below = self._below
            if below is None:
                return
            if below.unsent_bytes() > self._max_unsent_bytes:
                break
            event = next(events, None)
            if event is None:
                return
            self._event(event, below)
        if self._below is not None:
            self._below.again()

    def _event(self, event: Event, below: Below) -> None:
        if isinstance(event, TextMessage):
            self._take(event.data.encode(), event.message_finished, below)
        elif isinstance(event, BytesMessage):
            self._take(bytes(event.data), event.message_finished, below)
        elif isinstance(event, Ping):
            below.write(self._machine.send(event.response()))
        elif isinstance(event, CloseConnection):  # the client's, or what is wrong with what it sent
            below.write(self._machine.send(event.response()))
            self.close()

    def _take(self, part: bytes, last: bool, below: Below) -> None:
        self.held_bytes += len(part)
        crowded = self.held_bytes > PATIENT_BYTES and below.crowded
        if crowded or self.held_bytes > self._limit_bytes:
            if crowded:
                below.turned_away()
            code = CloseReason.TRY_AGAIN_LATER if crowded else CloseReason.MESSAGE_TOO_BIG
            below.write(self._machine.send(CloseConnection(code=code)))
            self.close()
            return
        self._message += part
        if last:
            message, self._message = bytes(self._message), bytearray()
            self.held_bytes = 0
            if message:
                self._receive(message)
