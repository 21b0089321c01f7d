"""Changes of a copy that endpoints of its target left unanswered, and may still do, behind newer ones."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from tools.musterctl.client import Client
from tools.musterctl.commands.data.telling import say

# a connection's loss is known by then; and all that its server had taken is done, or never is
_LOST_S, _LATEST_S = 1.0, 30.0
_LIMIT_S = 5.0
_AGAIN_S = 0.1


class Late:
    """Endpoints that stand still for long may bring old values back."""

    def __init__(self, target: Client) -> None:
        self._target = target
        self.unsure: list[str] = []  # endpoints that may still do what another one has done
        self.keys: deque[list[bytes]] = deque()  # to copy once more: they are sure to stay now

    def note(self, keys: Iterable[bytes]) -> None:
        """``keys``: of the source, which the last request changed, perhaps at several endpoints."""
        if not self._target.unanswered:
            return
        changed = list(keys)
        for endpoint in self._target.unanswered:
            self.unsure.append(endpoint)
            self._target.begin(self._settle(endpoint, changed))
        self._target.unanswered.clear()

    @property
    def unanswered(self) -> list[str]:
        """Endpoints that may still do what another one has done, or what is on its way."""
        return sorted({*self.unsure.copy(), *self._target.unanswered.copy()})

    def wait(self) -> None:
        """Until endpoints can do nothing late any more, unless one stays away."""
        if self.unsure:
            say(f"waits for {', '.join(self.unanswered)}, which left changes unanswered")
        until = time.monotonic() + _LOST_S + _LATEST_S + _LIMIT_S
        while self.unsure and time.monotonic() < until:
            time.sleep(_AGAIN_S)

    async def _settle(self, endpoint: str, keys: list[bytes]) -> None:
        """Have keys copied once more when an endpoint has either done its part, or never will."""
        await asyncio.sleep(_LOST_S)
        await self._target.answers(endpoint)
        await asyncio.sleep(_LATEST_S)
        self.keys.append(keys)
        self.unsure.remove(endpoint)
