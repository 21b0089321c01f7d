"""What a process reports to its supervisor: JSON lines on a pipe.

``{"event": "ready"}`` once it serves, ``{"event": "leader", ...}`` at each change, ``{"event": "fatal",
"error": ...}`` at the end if another start would not help, ``{"event": "drained"}`` once a front in a node's
process has ended.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cluster.machine import StatusSink


class StatusPipe:
    """Silent without a supervisor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, event: str, **facts: Any) -> None:
        """A supervisor that has ended is no error: this process is being stopped."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            self._fd = -1


class Part:
    """One of several parts of a process, see :func:`parts`."""

    def __init__(self, whole: StatusSink, waited_for: set[Part]) -> None:
        self._whole = whole
        self._waited_for = waited_for
        waited_for.add(self)

    def say(self, event: str, **facts: Any) -> None:
        """``ready`` is said once, when the last part has said it."""
        if event != "ready":
            self._whole.say(event, **facts)
        elif self in self._waited_for:
            self._waited_for.remove(self)
            if not self._waited_for:
                self._whole.say("ready")


def parts(whole: StatusSink, count: int) -> list[Part]:
    waited_for: set[Part] = set()
    return [Part(whole, waited_for) for _ in range(count)]
