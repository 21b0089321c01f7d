"""Live: every change as it comes, filtered, from one watch for all browsers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from muster_client import EVERYTHING, Delete, Put
from nicegui import events, ui

from tools.console.names import address, search, shown
from tools.console.store.hub import Told
from tools.console.views.page import Page
from tools.console.views.parts import button, chip, div, empty, heading
from tools.console.views.value import preview

KEPT = 500
SHOWN = 200
_DRAWN_S = 0.25
_ROW = """
<div role="listitem"><div class="mc-event" role="link" tabindex="0"
  @click="() => $parent.$emit('pick', props.item.i)"
  @keydown.enter="() => $parent.$emit('pick', props.item.i)">
  <span class="mc-time">{{props.item.t}}</span>
  <span class="mc-chip" :class="props.item.k">{{props.item.w}}</span>
  <span class="mc-mono mc-key">{{props.item.n}}</span>
  <span class="mc-mono mc-preview">{{props.item.v}}</span>
  <span class="mc-rev">{{props.item.r}}</span>
</div></div>
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A change, and when it came. Of its value only what is shown is kept: values may be large."""

    number: int
    at_s: float
    kind: str
    key: bytes
    revision: int
    value: str


def seen(number: int, at_s: float, change: Put | Delete) -> Seen:
    """What is kept of a change."""
    if isinstance(change, Delete):
        return Seen(number, at_s, "delete", change.key, change.revision, "")
    kind = "create" if change.created else "put"
    return Seen(number, at_s, kind, change.key, change.revision, preview(change.kv.value, 100))


class Log:
    """The last changes, and how many come in a second."""

    def __init__(self) -> None:
        self.kept: deque[Seen] = deque(maxlen=KEPT)
        self.count = 0
        self.since_s = time.monotonic()
        self._times: deque[tuple[float, int]] = deque()

    def add(self, changes: list[Put | Delete], now_s: float) -> None:
        """Take changes that came now."""
        for change in changes:
            self.count += 1
            self.kept.append(seen(self.count, now_s, change))
        self._times.append((now_s, len(changes)))

    def rate(self, now_s: float) -> float:
        """Changes in a second, over the last five."""
        while self._times and now_s - self._times[0][0] > 5.0:
            self._times.popleft()
        return sum(count for _, count in self._times) / min(5.0, max(1.0, now_s - self.since_s))

    def matching(self, kinds: set[str]) -> list[Seen]:
        """The latest first, of these kinds, as many as are shown."""
        return [one for one in reversed(self.kept) if one.kind in kinds][:SHOWN]


async def build(page: Page) -> None:
    """The event log."""
    Live(page).draw()


class Live:
    """The log of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.log = Log()
        self.paused = self.missed = False
        self.warned = "", False  # the error, and whether changes are missing, as they are shown
        self.kinds = {"create", "put", "delete"}
        self.changed = True
        self.rows: list[Seen] = []
        self.search = page.where[2].get("search", "")

    def draw(self) -> None:
        """Everything; then follow."""
        page = self.page
        heading(page.t("view.live"), page.t("live.text"))
        with div("mc-tools"):
            self.filter = (
                ui.input(placeholder=page.t("live.filter"), value=self.search)
                .props("outlined dense clearable spellcheck=false")
                .classes("mc-filter")
            )
            self.filter.props["aria-label"] = page.t("live.filter")
            self.filter.on(
                "keydown.enter", lambda: page.go(address("live", search=str(self.filter.value or "")))
            )
            for kind in ("create", "put", "delete"):
                self._kind(kind)
            div("mc-grow")
            self.rate = chip(page.t("live.rate", rate="0"))
            self.pause = button(page.t("live.pause"), self._pause, icon="pause")
            button(page.t("live.clear"), self._clear, icon="clear_all")
        self.trouble = div("mc-trouble", role="alert")
        self.list = ui.element("q-virtual-scroll").classes("mc-events scroll")
        self.list.props["items"] = []
        self.list.props["virtual-scroll-item-size"] = 34
        self.list.props["role"] = "list"
        self.list.props["aria-label"] = page.t("view.live")
        self.list.add_slot("default", _ROW)
        self.list.on("pick", self._pick)
        self.waiting = div("")
        with self.waiting:
            empty("bolt", page.t("live.waiting"), page.t("live.waiting_text"))
        try:
            where = search(self.search) if self.search else EVERYTHING
        except ValueError:
            page.complain(page.t("search.none"))
            return
        page.on_leave(page.identity.hub.follow(where, self._told))
        ui.timer(_DRAWN_S, self._show)

    def _kind(self, kind: str) -> None:
        made = button(self.page.t(f"live.{kind}"), lambda: turn(), kind="tab").classes("on")
        made.props["aria-pressed"] = "true"

        def turn() -> None:
            self.kinds ^= {kind}
            on = kind in self.kinds
            made.classes(add="on" if on else None, remove=None if on else "on")
            made.props["aria-pressed"] = "true" if on else "false"
            self.changed = True

    def _told(self, told: Told) -> None:
        self.missed |= told.missed
        if (told.error, self.missed) != self.warned:  # else a screen reader repeats it
            self.warned = told.error, self.missed
            self._warn(told.error)
        if not self.paused:
            changes = [event for event in told.events if isinstance(event, Put | Delete)]
            self.log.add(changes, time.monotonic())
            self.changed |= bool(changes)

    def _warn(self, error: str) -> None:
        self.trouble.clear()
        if error or self.missed:
            with self.trouble:
                ui.icon("sync_problem")
                missed = self.page.t("live.missed")
                ui.label(self.page.t("not_live", reason=error) if error else missed)

    def _pause(self) -> None:
        self.paused = not self.paused
        self.pause.set_text(self.page.t("live.go_on" if self.paused else "live.pause"))
        self.pause.props["icon"] = "play_arrow" if self.paused else "pause"
        if self.paused:
            self._show()  # what has come; then rows stay, and the focus with them

    def _clear(self) -> None:
        self.log.kept.clear()
        if self.missed:
            self.missed, self.warned = False, ("", False)
            self.trouble.clear()
        self.changed = True

    def _show(self) -> None:
        """Draw the latest, four times a second at most, whatever comes. Drawing takes the focus off a row."""
        if self.paused and not self.changed:
            return
        now_s = time.monotonic()
        rate = self.log.rate(now_s)
        self.rate.clear()
        with self.rate:
            ui.label(
                self.page.t("live.rate", rate=f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}")
            )
        if not self.changed:
            return
        self.changed = False
        self.rows = self.log.matching(self.kinds)
        ago = time.time() - now_s
        self.list.props["items"] = [self._item(one, ago) for one in self.rows]
        self.list.update()
        self.waiting.set_visibility(not self.rows)

    def _item(self, one: Seen, ago: float) -> dict[str, Any]:
        at = one.at_s + ago
        return {
            "i": one.number,
            "t": time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 10) % 10}",
            "k": f"mc-{one.kind}",
            "w": self.page.t(f"live.{one.kind}"),
            "n": shown(one.key),
            "v": one.value,
            "r": f"{one.revision:,}",
        }

    def _pick(self, event: events.GenericEventArguments) -> None:
        for one in self.rows:
            if one.number == event.args:
                self.page.go(address("keys", one.key))
