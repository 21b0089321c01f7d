"""WebSockets of browsers, as the console ends."""

from __future__ import annotations

from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from websockets.exceptions import InvalidState


class Sockets(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """One that its browser is just closing is closed like any other; uvicorn's ends the console for it."""

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except InvalidState:
            self.transport.close()
