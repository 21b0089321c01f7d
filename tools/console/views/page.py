"""What a view gets: where it is, whom it asks, the words of its language, and what ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from muster_client import MusterError
from muster_client.ranges import Keys
from nicegui import Client, background_tasks, ui

from tools.console.names import parse_address
from tools.console.sessions import Identity, Target
from tools.console.store.access.rights import UNLIMITED, Rights
from tools.console.store.v2.calls import Version2
from tools.console.texts import Words

Stays = Callable[[str], bool]


@dataclass(slots=True)
class Page:
    """One browser's page. ``go`` shows another address, ``mark`` only writes it into the address bar."""

    target: Target
    identity: Identity
    words: Words
    browser: Client
    path: str
    go: Callable[[str], None]
    dark: bool | None = None
    stays: Stays | None = None
    rights: Rights = UNLIMITED
    _own2: Version2 | None = None
    _ends: list[Callable[[], None]] = field(default_factory=list)

    def t(self, text: str, **values: Any) -> str:
        """A text in the page's language."""
        return self.words(text, **values)

    def why(self, error: Exception) -> str:
        """What a refusal says, in the page's language where the console says it."""
        return self.words.reason(str(error))

    @property
    def may_change(self) -> bool:
        """Whether the console offers changes at all."""
        return not self.target.read_only

    @property
    def may_manage(self) -> bool:
        """Whether it offers what the role ``root`` alone may do."""
        return self.may_change and self.rights.everything

    @property
    def may_write_some(self) -> bool:
        """Whether there are keys that it offers to change."""
        return self.may_change and (self.rights.everything or bool(self.rights.writes))

    def may_write(self, keys: Keys) -> bool:
        """Whether it offers to change a key, or all keys of a range."""
        return self.may_change and self.rights.may_write(keys)

    @property
    def version2(self) -> Version2:
        """Version 2 of the API, asked as the user of this page."""
        return self._own2 or self.identity.version2

    def log_in2(self, user: str, password: str) -> None:
        """Ask version 2 as another user, from this page alone and as long as it is open."""
        self.close()
        target = self.target
        self._own2 = Version2(target.endpoints, self.identity.tls, user, password, read_only=target.read_only)

    def close(self) -> None:
        """End what the page itself has open."""
        if self._own2 is not None:
            self._own2.close()
            self._own2 = None

    @property
    def where(self) -> tuple[str, bytes, dict[str, str]]:
        """View, key and query of the address."""
        return parse_address(self.path)

    def mark(self, path: str) -> None:
        """Write an address that this view already shows into the browser's history."""
        if path != self.path:
            self.path = path
            with self.browser:
                ui.navigate.history.push(path)

    def instead(self, path: str) -> None:
        """Show an address in place of this one, in the browser's history, too."""
        self.path = path
        with self.browser:
            ui.navigate.history.replace(path)
        self.go(path)

    def on_leave(self, end: Callable[[], None]) -> None:
        """Call this when the view, or the browser, goes."""
        self._ends.append(end)

    def leave(self) -> None:
        """End what the view began."""
        self.stays = None
        ends, self._ends = self._ends, []
        for end in ends:
            end()

    def run(self, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background; what the cluster refuses is shown."""
        task = background_tasks.create(self.told(step))
        task.add_done_callback(lambda _: step.close())  # it may end before it has begun
        return task

    async def told(self, step: Awaitable[None]) -> None:
        """Do something; what the cluster refuses is shown in its own words."""
        try:
            await step
        except MusterError as error:
            self.complain(str(error))

    def say(self, text: str, **values: Any) -> None:
        """A short message."""
        self._notify(self.t(text, **values), "positive")

    def complain(self, reason: str) -> None:
        """A refusal."""
        self._notify(self.words.reason(reason), "negative")

    def _notify(self, text: str, kind: Any) -> None:
        if not self.browser.is_deleted:
            with self.browser:
                ui.notify(text, type=kind, position="bottom", multi_line=True)
