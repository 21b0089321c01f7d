"""The frame of every view: header, navigation, keys of the keyboard, and which view an address has."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import Request
from muster_client import AuthenticationFailed, MusterError, PermissionDenied
from nicegui import background_tasks, ui

from tools.console.names import address, parse_address
from tools.console.sessions import Identity, Sessions, Target
from tools.console.texts import LANGUAGES, Words
from tools.console.views import keys, leases, live, services, txn
from tools.console.views.access import users
from tools.console.views.charts import charts
from tools.console.views.cluster import cluster
from tools.console.views.page import Page
from tools.console.views.parts import PLAIN_CLICK, button, chip, div, empty, tag, tag_text
from tools.console.views.style import CODE, CSS, MARK
from tools.console.views.v2 import tree as tree2

Build = Callable[[Page], Awaitable[None]]
VIEWS: dict[str, tuple[Build, str]] = {
    "keys": (keys.build, "account_tree"),
    "live": (live.build, "bolt"),
    "leases": (leases.build, "timer"),
    "services": (services.build, "lan"),
    "txn": (txn.build, "swap_horiz"),
    "cluster": (cluster.build, "hub"),
    "charts": (charts.build, "show_chart"),
    "users": (users.build, "group"),
    "v2": (tree2.build, "folder_copy"),
}
_PULSE_S = 5.0
log = logging.getLogger("tools.console")
_LOOK, _LANGUAGE = "muster-console-look", "muster-console-language"
# The browser's back button, and the keys: the only script of the console
_SCRIPT = """
window.addEventListener('popstate', () => emitEvent('muster_path', location.pathname + location.search));
document.addEventListener('keydown', (e) => {
  const at = document.activeElement;
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (at?.closest('input, textarea, .cm-content, [role=dialog]')) return;
  if (e.key == '/') { e.preventDefault(); document.querySelector('.mc-search input')?.focus(); }
  if (e.key == '?' || (e.key >= '1' && e.key <= '9')) emitEvent('muster_key', e.key);
});
"""


def words_of(request: Request) -> Words:
    """The language that the browser was switched to, else the one that it asks for."""
    chosen = request.cookies.get(_LANGUAGE) or request.headers.get("accept-language", "")
    return Words.preferred(chosen)


def look_of(request: Request) -> bool | None:
    """Dark or light, as it was chosen; None: as the browser has it."""
    return {"dark": True, "light": False}.get(request.cookies.get(_LOOK, ""))


def path_of(request: Request) -> str:
    """Path and query as the browser sent them: ``request.url`` has lost which ``%`` was one of a key's."""
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    return path + (f"?{request.url.query}" if request.url.query else "")


def _head(words: Words, look: bool | None) -> ui.dark_mode:
    ui.add_head_html(f"<style>{CSS}</style>")
    ui.add_body_html(f"<script>{_SCRIPT}document.documentElement.lang='{words.language}';</script>")
    ui.colors(
        primary="#4f46e5",
        secondary="#0ea5e9",
        positive="#059669",
        negative="#dc2626",
        warning="#d97706",
        dark="#151823",
        dark_page="#0d0f16",
    )
    ui.context.client.title = "muster"
    return ui.dark_mode(look)


def _remember(name: str, value: str) -> None:
    """A choice of the browser's, in a cookie: it is no secret."""
    cookie = f"{name}={value}; path=/; max-age=31536000; SameSite=Lax"
    ui.run_javascript(f"document.cookie = {json.dumps(cookie)}")


def login_page(sessions: Sessions, request: Request, known: str, *, by_certificate: bool) -> None:
    """Ask for a name and a password. ``known``: the user that the browser's certificate names; it may log in
    by that alone if ``by_certificate``."""
    words = words_of(request)
    _head(words, look_of(request))
    path, address = path_of(request), request.client.host if request.client else ""

    async def enter() -> None:
        if not sign_in.enabled:  # a key that is held down
            return
        sign_in.disable()
        try:
            ticket = await sessions.log_in(user.value or "", password.value or "", address)
        except AuthenticationFailed:
            problem.set_text(words("login.wrong"))
        except MusterError as error:
            problem.set_text(words.reason(str(error)))
        else:
            ui.navigate.to(f"/enter?{urlencode({'ticket': ticket, 'to': path})}")
        sign_in.enable()

    with div("mc-login"), div("mc-login-card", role="main"):
        ui.html(MARK, sanitize=False).classes("mc-login-mark")
        tag_text("h1", words("login.title"))
        ui.label(words("login.text", endpoint=", ".join(sessions.target.endpoints))).classes("mc-sub")
        if by_certificate:
            door = f"/certificate?{urlencode({'to': path})}"
            button(
                words("login.certificate", user=known),
                lambda: ui.navigate.to(door),
                icon="badge",
                kind="primary",
            )
        user = ui.input(words("login.user"), value=known).props(
            "outlined dense autofocus autocomplete=username"
        )
        password = ui.input(words("login.password"), password=True, password_toggle_button=True).props(
            "outlined dense autocomplete=current-password"
        )
        password.on("keydown.enter", enter)
        user.on("keydown.enter", enter)
        problem = ui.label("").classes("mc-problem").props("role=alert")
        sign_in = button(words("login.do"), enter, kind="plain" if by_certificate else "primary")


async def build(target: Target, identity: Identity, request: Request) -> None:
    """The whole page, at the address of a request."""
    words = words_of(request)
    look = look_of(request)
    dark = _head(words, look)
    if look is None:
        ui.run_javascript("emitEvent('muster_dark', matchMedia('(prefers-color-scheme: dark)').matches)")
    path = path_of(request)
    shell = Shell(Page(target, identity, words, ui.context.client, path, lambda path: None, look), dark)
    shell.draw()
    shell.begin(path)


class Shell:
    """A browser's page, while it is open."""

    def __init__(self, page: Page, dark: ui.dark_mode) -> None:
        self.page, self._dark = page, dark
        page.go = self.go
        self._links: dict[str, ui.element] = {}
        self._showing: asyncio.Task[None] | None = None
        page.browser.on_delete(self._stop)
        page.browser.on_delete(page.leave)
        page.browser.on_delete(page.close)
        ui.on("muster_path", lambda event: self._open(str(event.args)))
        ui.on("muster_dark", lambda event: self._look_is(bool(event.args)))
        ui.on("muster_key", lambda event: self._key(str(event.args)))

    def draw(self) -> None:
        """Everything but the view."""
        page = self.page
        with tag("header", "mc-header"):
            with tag("a", "mc-brand", href="/keys", aria_label="muster").on(
                "click", lambda: self.go("/keys"), js_handler=PLAIN_CLICK
            ):
                ui.html(MARK, sanitize=False).classes("mc-mark")
                ui.label("muster").classes("mc-word")
            self._search = (
                ui.input(placeholder=page.t("search.hint"))
                .props("dense borderless clearable spellcheck=false")
                .classes("mc-search")
            )
            self._search.props["aria-label"] = page.t("search.label")
            self._search.on("keydown.enter", self._find)
            with self._search.add_slot("prepend"):
                ui.icon("search")
            with self._search.add_slot("append"):
                tag_text("kbd", "/")
            div("mc-grow")
            self._pulse = div("mc-pulse", role="status", aria_live="off")
            if not page.may_change:
                chip(page.t("read_only"), "mc-warn", "lock")
            self._choices()
        with div("mc-body"):
            with tag("nav", "mc-nav", aria_label=page.t("nav")):
                for at, (name, (_, icon)) in enumerate(VIEWS.items(), 1):
                    self._link(name, icon, at)
            self._main = tag("main", "mc-main", id="main")
        ui.timer(_PULSE_S, self._beat)

    def _link(self, name: str, icon: str, number: int) -> None:
        link = tag("a", "mc-link", href=f"/{name}").on(
            "click", lambda: self.go(f"/{name}"), js_handler=PLAIN_CLICK
        )
        with link:
            ui.icon(icon)
            ui.label(self.page.t(f"view.{name}"))
            tag_text("kbd", str(number))
        self._links[name] = link

    def _choices(self) -> None:
        page = self.page
        button("", self._toggle_look, icon="contrast", kind="quiet", label=page.t("look"))
        other = next(one for one in LANGUAGES if one != page.words.language)
        with button("", lambda: self._speak(other), kind="quiet", label=LANGUAGES[other]):
            ui.label("中" if other == "zh" else "EN").classes("mc-language")
        button("", self._help, icon="keyboard", kind="quiet", label=page.t("help"))
        if page.identity.user:
            with (
                ui.button(icon="account_circle", color=None)
                .props("round dense flat")
                .classes("mc-icon mc-button") as who
            ):
                who.props["aria-label"] = page.t("account", user=page.identity.user)
                with ui.menu(), div("mc-menu"):
                    ui.label(page.identity.user).classes("mc-strong")
                    button(page.t("logout"), lambda: page.browser.open("/leave"), icon="logout")

    def begin(self, path: str) -> None:
        """Show the first view; the frame does not wait for the cluster."""
        self._open(path)

    async def show(self, path: str) -> None:
        """Show the view of an address."""
        page = self.page
        view, _, _ = parse_address(path)
        name = view or "keys"
        if page.stays is not None and view == parse_address(page.path)[0]:
            page.path = path
            if page.stays(path):
                return
        page.leave()
        page.path = path
        for other, link in self._links.items():
            link.classes(add="on" if other == name else None, remove=None if other == name else "on")
            link.props["aria-current"] = "page" if other == name else "false"
        self._main.clear()
        with self._main:
            found = VIEWS.get(name)
            if found is None:
                empty("explore_off", page.t("not_found"), path)
                return
            try:
                page.rights = await page.identity.rights()
                await found[0](page)
            except MusterError as error:
                self._instead("cloud_off", page.t("unreachable"), page.why(error))
            except Exception as error:  # the frame is of use, and so are other views
                log.exception("cannot show the view %s", name)
                page.leave()
                self._instead("error_outline", page.t("broken"), f"{type(error).__name__}: {error}")
        await self._beat()

    def _instead(self, icon: str, title: str, reason: str) -> None:
        """Of a view that could not be shown."""
        page = self.page
        self._main.clear()
        with self._main:
            empty(icon, title, reason)
            button(page.t("again"), lambda: self.go(page.path), icon="refresh")

    def go(self, path: str) -> None:
        """Show an address, and write it into the browser's history."""
        if path != self.page.path:
            with self.page.browser:
                ui.navigate.history.push(path)
        self._open(path)

    def _open(self, path: str) -> None:
        self._stop()
        self._showing = background_tasks.create(self.show(path), context=self._main)

    def _stop(self) -> None:
        """A view that still waits for the cluster draws nothing beside the next one."""
        if self._showing is not None:
            self._showing.cancel()

    async def _beat(self) -> None:
        """Whether the cluster answers, and its revision."""
        page = self.page
        try:
            pages = page.identity.client.range(b"\0", keys_only=True, page=1, timeout=3.0)
            await pages.next()
        except PermissionDenied:
            text, kind, tip = page.t("pulse.up"), "mc-good", page.t("pulse.tip")
        except MusterError as error:
            text, kind, tip = page.t("pulse.down"), "mc-bad", str(error)
        else:
            text = page.t("pulse.revision", revision=f"{pages.revision:,}")
            kind, tip = "mc-good", page.t("pulse.tip")
        if not page.browser.is_deleted:
            self._pulse.clear()
            with self._pulse:
                chip(text, kind, tip=tip)

    def _find(self) -> None:
        text = str(self._search.value or "").strip()
        self.go(address("keys", search=text) if text else "/keys")

    def _key(self, key: str) -> None:
        if key == "?":
            self._help()
        elif key.isdigit() and int(key) <= len(VIEWS):
            self.go(f"/{list(VIEWS)[int(key) - 1]}")

    def _look_is(self, dark: bool) -> None:
        """Editors have colours of their own, which follow the page's."""
        self.page.dark = dark
        for element in list(self.page.browser.elements.values()):
            if isinstance(element, ui.codemirror):
                element.theme = CODE[dark]

    def _toggle_look(self) -> None:
        page = self.page
        self._look_is(not page.dark)
        with page.browser:
            _remember(_LOOK, "dark" if page.dark else "light")
        self._dark.value = page.dark

    def _speak(self, language: str) -> None:
        with self.page.browser:
            _remember(_LANGUAGE, language)
            ui.run_javascript("location.reload()")

    def _help(self) -> None:
        page = self.page
        with self.page.browser, ui.dialog() as made, div("mc-dialog", role="document"):
            tag_text("h2", page.t("help"))
            with div("mc-keys"):
                for key, text in (
                    ("/", "help.search"),
                    ("1-9", "help.views"),
                    ("↑ ↓", "help.move"),
                    ("→ ←", "help.open"),
                    ("Enter", "help.enter"),
                    ("?", "help.help"),
                    ("Esc", "help.close"),
                ):
                    tag_text("kbd", key)
                    ui.label(page.t(text))
            with div("mc-dialog-buttons"):
                button(page.t("close"), made.close)
        made.open()
