"""Chromium clicks through the console of three hosts with three shards, TLS and users, and of an etcd."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import muster_client as m
import pytest
from selenium.webdriver.common.keys import Keys

from tests.cluster.local_cluster import local_cluster, until
from tests.interop.console.chromium.browser import PROGRAMS, Browser, browser, served
from tests.interop.console.chromium.stores import READER, Store, plain_etcd, secured
from tests.interop.toolchain import skip_without
from tests.soaking import SOAK
from tools.console.store.keys.history import oldest_revision

skip_without(*PROGRAMS)

T = TypeVar("T")

# Labels that a person who does not see the page needs, and contrast: what axe looks for first
UNLABELLED = """
const shown = (e) => e.getClientRects().length && getComputedStyle(e).visibility != 'hidden';
const named = (e) => (e.getAttribute('aria-label') || e.innerText || e.title || '').trim()
  || (e.id && document.querySelector(`label[for="${e.id}"]`)) || e.closest('label, [aria-label]');
return [...document.querySelectorAll('button, a[href], input, textarea, [role=button]')]
  .filter((e) => shown(e) && !named(e)).map((e) => e.outerHTML.slice(0, 150));
"""
FAINT = """
const light = (c) => { const [r, g, b] = c.map((v) => v / 255).map(
    (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const parts = (t) => { const n = t.match(/[\\d.]+/g).map(Number); return n[3] === 0 ? null : n.slice(0, 3); };
const behind = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll('.mc-body *, .mc-header *, .mc-dialog *, .mc-login *')].filter((e) => {
  const own = [...e.childNodes].some((n) => n.nodeType == 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length) return false;
  if (e.closest('.cm-editor, [disabled], .material-icons, kbd')) return false;
  const color = parts(getComputedStyle(e).color) || [0, 0, 0];
  const [a, b] = [light(color), light(behind(e))].sort((x, y) => y - x);
  return (a + .05) / (b + .05) < 4.5;
}).map((e) => [e.innerText, e.className, getComputedStyle(e).color, behind(e)].join(' '));
"""


FOCUSED = "const at = document.activeElement; return [String(at.className), at.innerText || ''];"
WIDTHS = """const main = document.querySelector('.mc-main');
return [Math.max(document.documentElement.scrollWidth, main.scrollWidth), window.innerWidth];"""
VIEWS = ("keys", "live", "leases", "services", "txn", "cluster", "charts", "users", "v2")
PHONE = (390, 780)


@pytest.fixture(scope="module", params=["muster", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Each in turn, with its console."""
    folder = tmp_path_factory.mktemp("browser")
    with plain_etcd(folder) if request.param == "etcd" else secured(folder / "muster") as found:
        yield found


def asked(store: Store, step: Callable[[m.Client], Awaitable[T]]) -> T:
    """What a client of the store says, beside the browser."""

    async def main() -> T:
        async with store.client() as client, asyncio.timeout(60):
            return await step(client)

    return asyncio.run(main())


def downloaded(file: Path) -> bytes:
    """A file that the browser has saved: it is there, and empty, before."""
    until(lambda: file.exists() and file.stat().st_size)
    return file.read_bytes()


LATE = """data:text/html,<button disabled onclick="this.innerText = 'done'">go</button>
<script>setTimeout(() => { document.querySelector('button').disabled = false; }, 2000);</script>"""


def test_a_click_waits_for_what_is_not_enabled_yet() -> None:
    """As a button is whose page has yet to hear of the word that was typed."""
    with browser("") as page:
        page.open(LATE)
        page.click("button", "go")
        page.find("button", "done")


def _looks_right(page: Browser) -> None:
    assert page.driver.execute_script(UNLABELLED) == []
    assert page.driver.execute_script(FAINT) == []


def test_chromium_clicks_through_it(store: Store) -> None:
    with browser(store.base, notes=True) as page:
        store.enter(page)
        page.find(".mc-chip", "revision")
        # the tree, by mouse and by keyboard
        page.click(".mc-row", "/service/")
        page.click(".mc-row", "web/")
        page.click(".mc-row", "10.0.0.3")
        page.find(".cm-content", '"port": 8003')
        assert page.path == "/keys/service/web/10.0.0.3"
        page.find(".mc-tree").send_keys(Keys.ARROW_DOWN)
        page.find(".cm-content", '"port": 8004')
        page.driver.back()
        page.find(".cm-content", '"port": 8003')
        _looks_right(page)
        # edit, review, save
        page.click("button", "Edit")
        page.type(".cm-content[contenteditable=true]", '{"port": 1234}')
        page.click("button", "Review changes")
        page.find(".mc-plus", "1234")
        _looks_right(page)
        page.click("button", "Save")
        page.find(".q-notification", "Saved at revision")
        page.find(".mc-chip", "version 2")
        # search, history, the past
        page.press("/")
        page.press("/config/", Keys.ENTER)
        page.click(".mc-row", "/config/limits")
        page.click("button", "History")
        page.find(".mc-past", "limit 0")
        page.click("button", "Changes")
        page.find(".mc-diff", "limit")
        page.click("button", "Close")
        # every view, and the help
        page.driver.find_element("css selector", "body").click()
        page.escape()
        page.click(".mc-link", "Leases")
        page.find(".mc-keylink", "/service/db/primary")
        _looks_right(page)
        page.click(".mc-link", "Cluster")
        page.find(".mc-card", "Leader")
        _looks_right(page)
        page.click(".mc-link", "Services")
        page.find(".mc-card", "web")
        _looks_right(page)
        page.click(".mc-link", "Transaction")
        page.find(".mc-card", "Then")
        _looks_right(page)
        page.find("label.mc-wide-field", "Value")
        fields = page.driver.find_elements("css selector", "label.mc-wide-field")
        for field, text in zip(fields, ("/job", "0", "/job", "mine"), strict=True):
            field.find_element("css selector", "input").send_keys(text)
        page.click("button", "Show the request")
        page.find(".mc-request", 'put "/job" "mine"')
        page.click(".mc-dialog button", "Send")
        page.find(".mc-chip", "All conditions hold")
        page.click(".mc-link", "Charts")
        page.find(".mc-chart svg")
        _looks_right(page)
        page.click(".mc-link", "Users")
        page.find("h2", "Roles: ")
        _looks_right(page)
        page.click("button", "New role")
        page.find(".mc-dialog input").send_keys("writer")
        page.click("button", "Create")
        page.find(".mc-access", "writer")  # the page is drawn anew: a click at what it had is lost
        page.click("button[aria-label='Add a permission']")
        page.find(".mc-dialog .q-select")
        _looks_right(page)
        page.escape()
        page.click(".mc-link", "v2 tree")
        page.find(".mc-main", "version 2")
        _looks_right(page)
        page.click(".mc-link", "Live")
        page.find(".mc-empty", "Waiting")
        page.press("?")
        page.find(".mc-dialog", "Search keys")
        _looks_right(page)
        page.escape()
        # the dark, and Chinese
        page.click("button[aria-label='Light or dark']")
        until(
            lambda: (
                "body--dark" in str(page.driver.find_element("css selector", "body").get_attribute("class"))
            )
        )
        page.open("/cluster")
        page.find(".mc-card", "Leader")
        _looks_right(page)
        page.click("button[aria-label='中文']")
        page.find(".mc-link", "集群")
        assert page.asked() == {store.base}, "nothing is fetched from elsewhere"
        assert page.complaints() == []


def test_keys_are_written_and_go_to_files_and_back(store: Store, tmp_path: Path) -> None:
    with browser(store.base, files=tmp_path) as page:
        store.enter(page, "/keys")
        page.click("button", "New key")
        page.type(".mc-dialog input", "/made/one")
        page.type(".mc-dialog textarea", "a: 1")
        page.click("button", "Create")
        page.find(".cm-content", "a: 1")
        for form, text in (("Hex", "61 3a 20 31"), ("YAML", "a: 1"), ("Text", "a: 1")):
            page.click("button", form)
            page.find("button.on", form)
            page.find(".cm-content", text)
        page.choose(".mc-title ~ .mc-tools button[aria-label=More]", "Rename…")
        page.type(".mc-dialog input", "/made/two")
        page.click(".mc-dialog button", "Rename…")
        page.find(".mc-leaf", "two")
        page.click("button[aria-label=Export]")
        page.type(".mc-dialog input", "/made/")
        page.click(".mc-dialog button", "JSON")
        file = tmp_path / "keys.json"
        assert json.loads(downloaded(file)) == [{"key": "/made/two", "value": "a: 1"}]
        page.choose(".mc-title ~ .mc-tools button[aria-label=More]", "Delete below /made/…")
        page.type(".mc-dialog input", "/made/")
        page.click(".mc-dialog button", "Delete")
        page.find(".mc-empty", "There is no such key")
        page.click("button[aria-label=Import]")
        page.find(".mc-dialog", "A file that Export made")
        page.driver.find_element("css selector", "input[type=file]").send_keys(str(file))
        page.find(".mc-dialog", "1 keys; the first is /made/two")
        page.click(".mc-dialog button", "Import")
        page.find(".cm-content", "a: 1")
        assert asked(store, lambda client: client.count(m.prefix("/made/"))) == 1
        assert page.complaints() == []


def test_the_past_events_and_leases_are_shown_and_used(store: Store) -> None:
    first = asked(store, lambda client: client.put("/past/key", "then")).revision
    asked(store, lambda client: client.put("/past/key", "now"))
    with browser(store.base) as page:
        store.enter(page, "/keys/past/key")
        page.find(".cm-content", "now")
        page.click("button[aria-label='Look into the past']")
        page.find(".q-slider")
        page.type("input[aria-label=Revision]", str(first))
        page.click(".mc-dialog button", "Show")
        page.find(".mc-banner", f"The store as of revision {first:,}")
        page.find(".cm-content", "then")
        page.click(".mc-link", "Live")
        page.find(".mc-empty", "Waiting")
        put = partial(asked, store, lambda client: client.put("/past/event", "seen"))
        until(lambda: put().revision and "/past/event" in page.texts(".mc-event"))
        page.click("button", "Pause")
        page.find("button", "Go on")
        tab_to(page, "mc-event", "/past/event")
        page.press(Keys.ENTER)
        page.find(".cm-content", "seen")
        page.click(".mc-link", "Leases")
        page.click("button", "Grant a lease")
        page.type(".mc-dialog input", "7777")
        page.click(".mc-dialog button", "Grant a lease")
        page.find(".mc-tr", "of 2 h")
        page.click("button[aria-label='Keep alive once']")
        page.find(".q-notification", "runs for its whole time again")
        before = page.texts("h2")
        page.click("button[aria-label=Revoke]")
        page.click(".mc-dialog button", "Revoke")
        page.without("h2", before)
        assert page.complaints() == []


def test_the_cluster_is_changed(store: Store, tmp_path: Path) -> None:
    with browser(store.base, files=tmp_path) as page:
        store.enter(page, "/cluster")
        page.find(".mc-card", "Leader")
        if store.has_users:  # three hosts: another one may lead
            page.find(".mc-leads h2")
            leads = page.texts(".mc-leads h2")
            page.choose(".mc-host:not(.mc-leads) button[aria-label=More]", "Make it the leader")
            page.click(".mc-dialog button", "Make it the leader")
            page.find(".q-notification", "Done")
            until(lambda: page.texts(".mc-leads h2") not in ("", leads))
            for shard in range(3):
                page.find(".mc-replica", f"Shard {shard}")
        page.choose(".mc-leads button[aria-label=More]", "Defragment")
        page.click(".mc-dialog button", "Defragment")
        page.find(".q-notification", "Done")
        page.click("button", "Snapshot")
        page.click(".mc-dialog button", "Snapshot")
        data = downloaded(tmp_path / "snapshot.db")
        assert hashlib.sha256(data[:-32]).digest() == data[-32:]
        page.click("button", "Compact")
        page.click(".mc-dialog button", "Compact")
        page.without(".mc-dialog", "Compact")
        oldest = asked(store, lambda client: oldest_revision(client, b"/"))
        assert oldest > 1
        assert page.complaints() == []


def test_the_tree_of_version_2_is_used(store: Store) -> None:
    with browser(store.base) as page:
        store.enter(page, "/v2")
        if store.has_users:  # those of version 3: version 2 lets nobody in then
            page.find(".mc-empty", "Version 2 asks for a user")
            page.click("button[aria-label='Sign in to version 2']")
            page.find(".mc-dialog", "Version 2 has users of its own")
            _looks_right(page)
            return
        page.click("button", "New directory")
        page.type(".mc-dialog label:nth-of-type(1) input", "made")
        page.click(".mc-dialog button", "Create")
        page.click(".mc-keylink", "made")
        page.find(".mc-main", "Nothing is listed here")
        page.click("button", "New key")
        page.type(".mc-dialog label:nth-of-type(1) input", "color")
        page.type(".mc-dialog textarea", "blue")
        page.click(".mc-dialog button", "Create")
        page.click(".mc-keylink", "color")
        page.find("pre", "blue")
        _looks_right(page)
        assert page.path == "/v2/made/color"
        assert page.complaints() == []


def test_the_keyboard_is_enough(store: Store) -> None:
    with browser(store.base) as page:
        store.enter(page, "/keys")
        page.find(".mc-row", "/service/")
        page.press("/")
        page.press("/service/web/", Keys.ENTER)
        page.find(".mc-row", "10.0.0.3")
        tab_to(page, "mc-tree")
        page.press(Keys.HOME)
        page.press(Keys.ARROW_DOWN)
        page.find(".cm-content", '"port": 8001')
        chosen = page.find(".mc-tree").get_attribute("aria-activedescendant")
        page.find(f"#{chosen}", "10.0.0.1")  # what a screen reader is told
        tab_to(page, "mc-primary", "Edit")
        page.press(Keys.ENTER)
        tab_to(page, "cm-content")
        page.press(Keys.ESCAPE)  # the tabulator indents before
        page.press(Keys.TAB)
        until(lambda: "cm-content" not in page.driver.execute_script(FOCUSED)[0])
        for number, title in (("2", "Live"), ("6", "Cluster"), ("3", "Leases")):
            page.press(number)
            page.find("h1", title)
        page.press("?")
        page.find(".mc-dialog", "Keys of the keyboard")
        page.escape()
        assert page.complaints() == []


def tab_to(page: Browser, kind: str, text: str = "") -> None:
    """Press the tabulator until something of a class has the focus."""
    for _ in range(60):
        kinds, told = page.driver.execute_script(FOCUSED)
        if kind in kinds.split() and text in told:
            return
        page.press(Keys.TAB)
    raise AssertionError(f"no {kind} {text} by the keyboard")


def test_every_view_fits_a_phone(store: Store) -> None:
    language = "en" if store.has_users else "zh"  # one look at each: dark, light; English, Chinese
    with browser(store.base, size=PHONE, dark=language == "zh") as page:
        store.enter(page)
        page.driver.add_cookie({"name": "muster-console-language", "value": language})
        for view in VIEWS:
            page.open(f"/{view}")
            page.find(f"a.mc-link.on[href='/{view}']")
            page.settle()
            wide, room = page.driver.execute_script(WIDTHS)
            assert wide <= room, f"/{view} is wider than the phone"
            _looks_right(page)
        page.open("/keys/config/limits")
        page.find(".cm-content", "limit 2")
        page.click(".mc-back")
        page.find(".mc-row", "/config/")
        assert page.complaints() == []


def test_a_user_is_offered_what_it_may(store: Store) -> None:
    if not store.has_users:
        return
    with browser(store.base) as page:
        store.enter(page, "/keys?search=/config/", READER)
        page.click(".mc-row", "/config/limits")
        page.find("button", "History")
        shown = page.texts("button")
        assert not {"Edit", "New key"} & set(shown.splitlines())
        page.click(".mc-link", "Keys")
        page.find(".mc-empty", "You may not list all keys")
        page.click("button[aria-label='Signed in as reader']")
        page.click("button", "Sign out")
        page.find("h1", "Sign in")
        page.find(".mc-sub", "This cluster has users")
        _looks_right(page)


@pytest.mark.longer
def test_a_page_stays_while_hosts_are_killed(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path / "muster", 3, "--shards=2") as cluster,
        served(cluster.endpoints()) as base,
        browser(base) as page,
    ):
        page.open("/cluster")
        page.find(".mc-card", "Leader")
        page.driver.execute_script("window.stays = true;")
        hosts = page.driver.current_window_handle
        page.driver.switch_to.new_window("tab")
        page.open("/keys?search=/watched/")
        page.find(".mc-tools")
        page.driver.execute_script("window.stays = true;")
        keys = page.driver.current_window_handle
        for host in range(3 if SOAK else 1):
            cluster.ok("kill", str(host))
            page.driver.switch_to.window(hosts)
            page.find(".mc-down", f"host{host}")
            page.find(".mc-leads", "Leader")
            other = cluster.endpoints()[(host + 1) % 3]

            async def put(name: str, endpoint: str = other) -> None:
                async with m.Client(endpoint) as client:
                    await client.put(f"/watched/{name}", "")

            page.driver.switch_to.window(keys)
            asyncio.run(put(f"key-{host}"))
            page.find(".mc-row", f"key-{host}")
            page.find(".mc-pulse .mc-good", "revision")
            cluster.ok("start", str(host), "--wait=60s")
            page.driver.switch_to.window(hosts)
            until(lambda: not page.driver.find_elements("css selector", ".mc-down"))
        for window in (hosts, keys):
            page.driver.switch_to.window(window)
            assert page.driver.execute_script("return window.stays;"), "it was not loaded anew"
        assert page.complaints() == []
