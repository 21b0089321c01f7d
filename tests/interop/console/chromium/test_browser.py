"""Chromium clicks through the console of three hosts with three shards, and through that of an etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import muster_client as m
import pytest
from selenium.webdriver.common.keys import Keys

from tests.cluster.local_cluster import local_cluster, until
from tests.interop.console.chromium.browser import PROGRAMS, Browser, browser, served
from tests.interop.console.conftest import one_etcd
from tests.interop.toolchain import skip_without

skip_without(*PROGRAMS)

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
return [...document.querySelectorAll('.mc-body *, .mc-header *, .mc-dialog *')].filter((e) => {
  const own = [...e.childNodes].some((n) => n.nodeType == 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length) return false;
  if (e.closest('.cm-editor, [disabled], .material-icons, kbd')) return false;
  const color = parts(getComputedStyle(e).color) || [0, 0, 0];
  const [a, b] = [light(color), light(behind(e))].sort((x, y) => y - x);
  return (a + .05) / (b + .05) < 4.5;
}).map((e) => [e.innerText, e.className, getComputedStyle(e).color, behind(e)].join(' '));
"""


async def _filled(endpoint: str) -> None:
    async with m.Client(endpoint) as client:
        for n in range(5):
            await client.put(f"/service/web/10.0.0.{n}", f'{{"port": {8000 + n}}}')
        for n in range(3):
            await client.put("/config/limits", f"limit {n}")
        lease = await client.lease(300)
        await client.put("/service/db/primary", "up", lease=lease)


@pytest.fixture(scope="module", params=["muster", "etcd"])
def console(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A console's address, and its cluster's."""
    folder = tmp_path_factory.mktemp("browser")
    if request.param == "etcd":
        with one_etcd(folder) as endpoint, served([endpoint]) as base:
            yield base, endpoint
        return
    with local_cluster(folder / "muster", 3, "--shards=3") as cluster, served(cluster.endpoints()) as base:
        yield base, cluster.endpoints()[0]


def _looks_right(page: Browser) -> None:
    assert page.driver.execute_script(UNLABELLED) == []
    assert page.driver.execute_script(FAINT) == []


def test_chromium_clicks_through_it(console: tuple[str, str], tmp_path: Path) -> None:
    base, endpoint = console
    asyncio.run(_filled(endpoint))
    with browser(base) as page:
        page.open("/")
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
        page.click("button", "Show the request")
        page.escape()
        page.click(".mc-link", "Charts")
        page.find(".mc-chart svg")
        _looks_right(page)
        page.click(".mc-link", "Users")
        page.find("h2", "Roles: ")
        _looks_right(page)
        page.click("button", "New role")
        page.find(".mc-dialog input").send_keys("reader")
        page.click("button", "Create")
        page.click("button[aria-label='Add a permission']")
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
        assert page.asked() == {base}, "nothing is fetched from elsewhere"
        assert page.complaints() == []


@pytest.mark.soak
def test_a_page_stays_while_hosts_are_killed(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path / "muster", 3, "--shards=2") as cluster,
        served(cluster.endpoints()) as base,
        browser(base) as page,
    ):
        asyncio.run(_filled(cluster.endpoints()[0]))
        page.open("/keys?search=/watched/")
        page.find(".mc-tools")
        for host in range(3):
            cluster.ok("kill", str(host))
            other = cluster.endpoints()[(host + 1) % 3]

            async def put(name: str, endpoint: str = other) -> None:
                async with m.Client(endpoint) as client:
                    await client.put(f"/watched/{name}", "")

            asyncio.run(put(f"key-{host}"))
            page.find(".mc-row", f"key-{host}")
            cluster.ok("start", str(host), "--wait=60s")
        assert page.complaints() == []
