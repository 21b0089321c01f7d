"""What the connections of a server come to together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.listener.connection import ClientConnection


class Sums:
    """Over connections that are looked at one after the other."""

    def __init__(self) -> None:
        self.found = dict.fromkeys(
            ("http2_connections", "http1_connections", "streams", "queued_bytes", "buffered_bytes",
             "paused_reading"), 0)

    def add(self, connection: ClientConnection) -> None:
        """One more."""
        found, http2 = self.found, connection.http2
        if http2 is not None:
            found["http2_connections"] += 1
            found["streams"] += len(http2.streams)
            found["queued_bytes"] += http2.queued
            found["buffered_bytes"] += http2.buffered
        found["http1_connections"] += connection.http1 is not None
        found["paused_reading"] += connection.paused_reading
