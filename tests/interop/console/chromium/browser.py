"""A real browser, without a window: Chromium by its own driver."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.cluster.local_cluster import environment, until
from tests.ports import free_ports

PROGRAMS = ("chromium", "chromedriver")
LIMIT_S = 60.0  # that a busy machine keeps
_OPEN = ".q-dialog, .q-menu"
# in one call of the driver: three for each look would take more CPU than the page
LAST = """
const [css, text, enabled] = arguments;
const sight = {checkOpacity: true, checkVisibilityCSS: true, opacityProperty: true, visibilityProperty: true};
const told = (e) => ((e.innerText || '').trim() || e.value || '').replaceAll('\\u00a0', ' ');
const found = [...document.querySelectorAll(css)].reverse().find((e) =>
  e.checkVisibility(sight) && e.getClientRects().length && told(e).includes(text));
return found && !(enabled && found.matches(':disabled')) ? found : null;
"""


class Browser:
    """One window. What is looked for is waited for."""

    def __init__(
        self,
        base: str,
        language: str,
        size: tuple[int, int],
        dark: bool,
        home: Path | None = None,
        files: Path | None = None,
        notes: bool = False,
    ) -> None:
        chromium, chromedriver = map(shutil.which, PROGRAMS)
        options = Options()
        options.binary_location = chromium or ""
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--hide-scrollbars", f"--accept-lang={language}"):  # fmt: skip
            options.add_argument(flag)
        if dark:
            options.add_argument("--blink-settings=preferredColorScheme=0")
        logs = ("browser", "performance") if notes else ("browser",)
        options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
        if files is not None:
            options.add_experimental_option("prefs", {"download.default_directory": str(files)})
        self.base, self.language = base, language
        options.accept_insecure_certs = base.startswith("https:")  # of a test's authority
        # where it leaves its socket: it is told to end, and does not wait until that is removed
        self._temporary = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        own = {**os.environ, "TMPDIR": self._temporary.name}
        if home is not None:
            own["HOME"] = str(home)
        self.driver = webdriver.Chrome(options=options, service=Service(chromedriver, env=own))
        # a window's size has a frame, which the page's has not
        wide, high = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": wide, "height": high, "deviceScaleFactor": 1, "mobile": wide < 600},
        )

    def close(self) -> None:
        self.driver.quit()
        self._temporary.cleanup()

    def open(self, path: str) -> None:
        """An address of the console."""
        self.driver.get(self.base + path)

    @property
    def path(self) -> str:
        """The address that is shown."""
        return self.driver.current_url.removeprefix(self.base)

    def find(self, css: str, text: str = "") -> WebElement:
        """The last such element in sight with a text."""
        found: WebElement = until(lambda: self._last(css, text), LIMIT_S)
        return found

    def _last(self, css: str, text: str, *, enabled: bool = False) -> WebElement | None:
        """That element now; ``enabled``: if it may be clicked at."""
        with contextlib.suppress(Exception):  # the page is just going
            found: WebElement | None = self.driver.execute_script(LAST, css, text, enabled)
            return found
        return None

    def click(self, css: str, text: str = "") -> None:
        """Click at it, once nothing lies above it and it is enabled: a click before that is lost."""

        def done() -> bool:
            if (found := self._last(css, text, enabled=True)) is not None:
                with contextlib.suppress(Exception):  # it went while it was looked at
                    found.click()
                    return True
            return False

        until(done, LIMIT_S)

    def choose(self, css: str, item: str) -> None:
        """An item of a button's menu. Where the page is drawn anew meanwhile, the menu opens again."""

        def done() -> bool:
            with contextlib.suppress(Exception):  # it went while it was looked at
                found = [one for one in self.driver.find_elements(By.CSS_SELECTOR, ".q-menu .q-item")
                         if one.is_displayed() and item in one.text]  # fmt: skip
                if found:
                    found[-1].click()
                    return True
                self.find(css).click()
            return False

        until(done, LIMIT_S, look_s=2.0)

    def type(self, css: str, text: str) -> None:
        """Write into a field in place of what stands there."""
        field = self.find(css)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Keys of the keyboard, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()  # also where what had it is just going

    def escape(self) -> None:
        """Close what is open, by the keyboard: a dialog that is still opening does not hear the first key."""

        def closed() -> bool:
            with contextlib.suppress(Exception):  # it went while it was looked at
                if not any(one.is_displayed() for one in self.driver.find_elements(By.CSS_SELECTOR, _OPEN)):
                    return True
                self.press(Keys.ESCAPE)
            return False

        until(closed, LIMIT_S, look_s=0.2)

    def texts(self, css: str) -> str:
        """All that such elements say."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText).join('\\n');"
        return str(self.driver.execute_script(script, css))

    def without(self, css: str, text: str) -> None:
        """Wait until no such element has that text."""
        until(lambda: text not in self.texts(css), LIMIT_S)

    def complaints(self) -> list[str]:
        """What the browser says is wrong: faults of scripts, and what the page's policy forbids."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def asked(self) -> set[str]:
        """The origins that the browser has asked for anything; it has to take notes."""
        urls = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.add("/".join(message["params"]["request"]["url"].split("/")[:3]))
        return {url for url in urls if not url.startswith(("data:", "blob:", "chrome"))}

    def settle(self) -> None:
        """Wait until fonts are there and nothing moves."""
        self.driver.execute_async_script(
            "const done = arguments[0]; document.fonts.ready.then(() => setTimeout(done, 700));"
        )

    def picture(self, file: Path) -> None:
        """What is in sight, as a PNG."""
        self.driver.save_screenshot(str(file))


@contextlib.contextmanager
def browser(
    base: str,
    *,
    language: str = "en",
    dark: bool = False,
    size: tuple[int, int] = (1280, 860),
    home: Path | None = None,
    files: Path | None = None,
    notes: bool = False,
) -> Iterator[Browser]:
    """A browser, closed in the end. ``home``: where its certificates are; ``files``: what it downloads;
    ``notes``: it notes each request, which takes CPU."""
    one = Browser(base, language, size, dark, home, files, notes)
    try:
        yield one
    finally:
        one.close()


@contextlib.contextmanager
def served(endpoints: Sequence[str], *flags: str, scheme: str = "http") -> Iterator[str]:
    """A console in a process of its own; where it is."""
    (port,) = free_ports(1)
    base = f"{scheme}://127.0.0.1:{port}"
    line = [sys.executable, "-m", "tools.muster.cli", "console", f"--endpoints={','.join(endpoints)}",
            f"--listen={base}", *flags]  # fmt: skip
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, text=True)
    with process:
        yield from _until_left(process, base)


def _until_left(process: subprocess.Popen[str], base: str) -> Iterator[str]:
    try:
        assert process.stdout is not None
        assert "console of" in process.stdout.readline()
        yield base
    finally:
        psutil.Process(process.pid).terminate()
        assert process.wait(LIMIT_S) == 0
