"""What Chromium looks at: three hosts of three shards with TLS and users, and an etcd without either."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import muster_client as m
import psutil

from tests import forks
from tests.authority import Authority
from tests.cluster.local_cluster import LIMIT_S, STEADY, command, environment, until
from tests.interop.console.chromium.browser import Browser, served
from tests.interop.console.conftest import one_etcd
from tests.interop.console.visitor import secret_of
from tests.ports import free_base_port

HOSTS = SHARDS = 3
ROOT, READER = "root", "reader"  # the second may read /config/ alone


@dataclass(frozen=True)
class Store:
    """A cluster, and the address of its console."""

    base: str
    endpoints: tuple[str, ...]
    tls: m.Tls | None = None

    @property
    def has_users(self) -> bool:
        return self.tls is not None

    def client(self) -> m.Client:
        """As ``root``, if there are users."""
        if self.tls is None:
            return m.Client(list(self.endpoints))
        return m.Client(list(self.endpoints), user=ROOT, password=secret_of(ROOT), tls=self.tls)

    def enter(self, page: Browser, path: str = "/", user: str = ROOT) -> None:
        """Open an address, and log in if that is asked for."""
        page.open(path)
        if self.has_users:
            page.find("h1", "Sign in")
            page.type("input[autocomplete=username]", user)
            page.type("input[autocomplete=current-password]", secret_of(user))
            page.click("button", "Sign in")
            page.find(f"button[aria-label='Signed in as {user}']")


async def _fill(client: m.Client) -> None:
    for n in range(5):
        await client.put(f"/service/web/10.0.0.{n}", f'{{"port": {8000 + n}}}')
    for n in range(3):
        await client.put("/config/limits", f"limit {n}")
    lease = await client.lease(600)
    await client.put("/service/db/primary", "up", lease=lease)


async def _enable_users(client: m.Client) -> None:
    for name in (ROOT, READER):
        await client.auth.add_user(name, secret_of(name))
        await client.auth.add_role(name)
        await client.auth.grant_role(name, name)
    await client.auth.grant_permission(READER, m.prefix("/config/"), "read")
    await client.auth.enable()


async def _prepare(client: m.Client, *, users: bool) -> None:
    async with client:
        await _fill(client)
        if users:
            await _enable_users(client)


def _host(folder: Path, base_port: int, at: int, flags: tuple[str, ...]) -> subprocess.Popen[bytes]:
    ports = [base_port + 100 * host for host in range(HOSTS)]
    client, peer = f"https://127.0.0.1:{ports[at]}", f"https://127.0.0.1:{ports[at] + 1}"
    cluster = ",".join(f"host{host}=https://127.0.0.1:{port + 1}" for host, port in enumerate(ports))
    line = command(
        f"--name=host{at}", f"--data-dir={folder / f'host{at}'}", f"--shards={SHARDS}",
        f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster}", "--bcrypt-cost=4", "--fronts=1", "--cpus=none", *STEADY, *flags,
    )  # fmt: skip
    with open(folder / f"host{at}.log", "wb") as log:
        return forks.popen(line, stdout=log, stderr=log, env=environment())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(LIMIT_S)


@contextlib.contextmanager
def secured(folder: Path) -> Iterator[Store]:
    """Three hosts that talk by TLS with clients and with each other, and have users; so has the console."""
    folder.mkdir()
    authority = Authority(folder)
    pair, own = authority.issue("host", "127.0.0.1"), authority.issue("console", "127.0.0.1")
    flags = (
        f"--cert-file={pair.cert}", f"--key-file={pair.key}", f"--peer-cert-file={pair.cert}",
        f"--peer-key-file={pair.key}", "--peer-client-cert-auth", f"--peer-trusted-ca-file={authority.file}",
    )  # fmt: skip
    base_port, tls = free_base_port(HOSTS, SHARDS), m.Tls(str(authority.file))
    endpoints = tuple(f"https://127.0.0.1:{base_port + 100 * at}" for at in range(HOSTS))
    with contextlib.ExitStack() as stack:
        for at in range(HOSTS):
            stack.callback(_end, _host(folder, base_port, at, flags))
        until(lambda: asyncio.run(_serve(endpoints, tls)), 2 * LIMIT_S)
        asyncio.run(_prepare(m.Client(list(endpoints), tls=tls), users=True))
        console = (f"--cacert={authority.file}", f"--cert-file={own.cert}", f"--key-file={own.key}")
        yield Store(stack.enter_context(served(endpoints, *console, scheme="https")), endpoints, tls)


async def _serve(endpoints: tuple[str, ...], tls: m.Tls) -> bool:
    """Whether each host answers, for all shards."""
    with contextlib.suppress(m.MusterError):
        for endpoint in endpoints:
            async with m.Client(endpoint, tls=tls, timeout=3.0) as client:
                await client.count(m.EVERYTHING)
        return True
    return False


@contextlib.contextmanager
def plain_etcd(folder: Path) -> Iterator[Store]:
    """An etcd with version 2, as it comes."""
    with one_etcd(folder, "--enable-v2") as endpoint, served([endpoint]) as base:
        asyncio.run(_prepare(m.Client(endpoint), users=False))
        yield Store(base, (endpoint,))
