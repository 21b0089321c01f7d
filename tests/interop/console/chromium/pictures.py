"""``make pictures``: the pictures of the console in the documents, taken from three hosts of three shards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import muster_client as m
from muster_client import Client

from tests.cluster.local_cluster import local_cluster
from tests.interop.console.chromium.browser import Browser, browser, served

PHONE = (390, 780)
WINDOW = (1280, 760)
ZONES = ("eu", "us", "ap")
LARGEST_BYTES = 150_000


async def fill(client: Client) -> None:
    """Keys of a small company."""
    for zone in ZONES:
        for n in range(1, 7):
            await client.put(
                f"/service/web/{zone}/10.0.{len(zone)}.{n}:8080", json.dumps({"zone": f"{zone}-{n % 2}"})
            )
        lease = await client.lease(60)
        await client.put(f"/service/db/{zone}", "primary" if zone == "eu" else "replica", lease=lease)
    for n in range(24):
        await client.put(f"/config/features/feature-{n:02}", "on" if n % 3 else "off")
    for n in range(1, 7):
        value = {"requests_per_second": 250 * n, "burst": 400 + 50 * n, "timeout": "2s", "zones": list(ZONES)}
        await client.put("/config/limits", json.dumps(value, indent=2))
    for n in range(3000):
        if n % 100 == 0:
            await client.when().then(
                *(m.put(f"/jobs/{n // 500:02}/job-{n + k:05}", "done") for k in range(100))
            )


async def live(client: Client, stop: asyncio.Event) -> None:
    """Changes, as they come in a day."""
    n = 0
    while not stop.is_set():
        n += 1
        zone = ZONES[n % 3]
        await client.put(
            f"/service/web/{zone}/10.0.2.{n % 7 + 1}:8080", json.dumps({"zone": f"{zone}-1", "load": n % 9})
        )
        if n % 5 == 0:
            await client.put(f"/jobs/running/job-{n:05}", "started")
        if n % 5 == 3 and n > 10:
            await client.delete(f"/jobs/running/job-{n - 8:05}")
        await asyncio.sleep(0.05)


def keys(page: Browser) -> None:
    page.open("/keys/config/limits")
    page.find(".cm-content", "burst")
    page.click("button", "History")
    page.find(".mc-past", "burst")


def phone(page: Browser) -> None:
    page.open("/keys/config/limits")
    page.find(".cm-content", "burst")


def events(page: Browser) -> None:
    page.open("/live")
    page.find(".mc-event .mc-delete")


def cluster(page: Browser) -> None:
    page.open("/cluster")
    page.find(".mc-replica", "keys")


def leases(page: Browser) -> None:
    page.open("/leases")
    page.find(".mc-contender", "waits" if page.language == "en" else "等待")


PICTURES: dict[str, tuple[Callable[[Browser], None], str, bool, tuple[int, int]]] = {
    "keys": (keys, "en", False, WINDOW),
    "keys-phone": (phone, "en", True, PHONE),
    "live-dark": (events, "en", True, WINDOW),
    "cluster": (cluster, "en", False, WINDOW),
    "leases-chinese": (leases, "zh", False, WINDOW),
}


async def take(endpoints: list[str], base: str, folder: Path) -> None:
    """Take them all, with what goes on meanwhile."""
    stop = asyncio.Event()
    async with Client(endpoints) as client, Client(endpoints) as other:
        await fill(client)
        async with (
            client.lock("/locks/nightly-report"),
            client.election("/leaders/scheduler").campaign("worker-1"),
        ):
            waits = asyncio.create_task(other.lock("/locks/nightly-report").__aenter__())
            changes = asyncio.create_task(live(client, stop))
            for name, (show, language, dark, size) in PICTURES.items():
                await asyncio.to_thread(picture, folder / f"{name}.png", base, show, (language, dark, size))
            stop.set()
            waits.cancel()
            await asyncio.gather(changes, waits, return_exceptions=True)


def picture(
    file: Path, base: str, show: Callable[[Browser], None], how: tuple[str, bool, tuple[int, int]]
) -> None:
    """One picture."""
    language, dark, size = how
    with browser(base, language=language, dark=dark, size=size) as page:
        show(page)
        page.settle()
        page.picture(file)
        assert not page.complaints()
    assert file.stat().st_size < LARGEST_BYTES, f"{file}: {file.stat().st_size} bytes"
    print(file, file.stat().st_size)


def main(folder: Path) -> None:
    """Make all of them anew. SystemExit: this machine shows boxes for Chinese."""
    fonts = subprocess.run(["fc-list", ":lang=zh"], check=True, capture_output=True, text=True).stdout
    if not fonts:
        raise SystemExit("no font has Chinese: install fonts-noto-cjk")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as data,
        local_cluster(Path(data) / "muster", 3, "--shards=3") as hosts,
        served(hosts.endpoints()) as base,
    ):
        asyncio.run(take(hosts.endpoints(), base, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
