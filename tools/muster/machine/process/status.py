"""What a process says of itself to the supervisor that started it: JSON lines on a pipe.

``{"event": "ready"}`` once it serves, ``{"event": "leader", ...}`` when that changes, ``{"event": "fatal",
"error": ...}`` as its last words if starting it again would not help, ``{"event": "drained"}`` once a front
that shares a node's process has ended.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cluster.machine import StatusSink


class StatusPipe:
    """JSON lines to the supervisor; silent without one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, event: str, **facts: Any) -> None:
        """One line; a supervisor that is gone is no error here (this process is being stopped)."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            self._fd = -1


class Part:
    """The status of one of several parts that run in the same process. See :func:`parts`."""

    def __init__(self, whole: StatusSink, waited_for: set[Part]) -> None:
        self._whole = whole
        self._waited_for = waited_for
        waited_for.add(self)

    def say(self, event: str, **facts: Any) -> None:
        """As the process's own, but for ``ready``: that is said once, when the last part has said it."""
        if event != "ready":
            self._whole.say(event, **facts)
        elif self in self._waited_for:
            self._waited_for.remove(self)
            if not self._waited_for:
                self._whole.say("ready")


def parts(whole: StatusSink, count: int) -> list[Part]:
    """So many parts of one process."""
    waited_for: set[Part] = set()
    return [Part(whole, waited_for) for _ in range(count)]
