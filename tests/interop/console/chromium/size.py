"""``make console-size``: what the console needs for a million keys, in time, bytes and memory."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import muster_client as m
import psutil

from tests.cluster import one_host
from tests.cluster.local_cluster import until
from tests.interop.console.chromium.browser import Browser, browser, served

KEYS = 1_000_000
PER_DIRECTORY = 10_000
_TOGETHER, _WRITERS = 100, 8  # keys a transaction; etcd allows 128
# from the first byte of the page to its first rows, by the browser's own clock
ROWS = "return document.querySelectorAll('.mc-row').length && performance.now();"
HEAP = "return performance.memory.usedJSHeapSize;"
SENT = """return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .reduce((sum, one) => sum + one.transferSize, 0);"""
_MIB = 1 << 20


async def fill(endpoint: str, keys: int) -> None:
    """So many keys, in directories."""
    batches: Iterator[int] = iter(range(0, keys, _TOGETHER))

    async def write(client: m.Client) -> None:
        for at in batches:
            names = (
                f"/jobs/{n // PER_DIRECTORY:03}/job-{n:07}" for n in range(at, min(at + _TOGETHER, keys))
            )
            await client.when().then(*(m.put(name, "done") for name in names))

    async with m.Client(endpoint, timeout=60) as client:
        await asyncio.gather(*(write(client) for _ in range(_WRITERS)))
        assert await client.count(m.EVERYTHING) == keys


def look(page: Browser, path: str) -> str:
    """Open an address; when its first rows are there, and what they took."""
    page.open(path)
    first_s = until(lambda: page.driver.execute_script(ROWS)) / 1000
    page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    heap, sent = page.driver.execute_script(HEAP), page.driver.execute_script(SENT)
    return (f"{path:<28} first rows {first_s:6.2f} s, page's memory {heap / _MIB:6.1f} MiB, "
            f"loaded {sent / _MIB:5.2f} MiB")  # fmt: skip


def console_process() -> psutil.Process:
    """The console that this process started."""
    return next(one for one in psutil.Process().children() if "console" in one.cmdline())


def main(keys: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as data, one_host.started(Path(data) / "muster") as host:
        until(host.serves)
        endpoint = f"127.0.0.1:{host.port}"
        began = time.monotonic()
        asyncio.run(fill(endpoint, keys))
        print(f"{keys:,} keys written in {time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f}")
        with served([endpoint]) as base, browser(base) as page:
            process = console_process()
            print(f"console before the first page: {process.memory_info().rss / _MIB:.0f} MiB")
            for path in ("/keys", "/keys?flat=1", f"/keys/jobs/{keys // PER_DIRECTORY // 2:03}/job-0000000",
                         "/keys?search=/jobs/0", "/keys"):  # fmt: skip
                print(look(page, path))
            print(f"console afterwards: {process.memory_info().rss / _MIB:.0f} MiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KEYS)
