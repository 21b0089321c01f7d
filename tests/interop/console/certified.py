"""A store whose users come by certificates, and a console that has those of some."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import muster_client as m

from tests.authority import Authority, Pair
from tests.interop.secure_hosts import secure_host

ALICE = "alice"  # may read /open/ alone; the console has a certificate of hers
MALLORY = "mallory"  # a user of the store whom the console has none of


@dataclass(frozen=True)
class Certified:
    """``users``: the folder of the certificates that the console has."""

    authority: Authority
    url: str
    folder: Path
    users: Path
    root: Pair

    @property
    def tls(self) -> m.Tls:
        """Of the user root."""
        return m.Tls(str(self.authority.file), str(self.root.cert), str(self.root.key))

    @property
    def flags(self) -> tuple[str, ...]:
        """Of its console, which visitors without a certificate reach, too."""
        own = self.authority.issue("console", "127.0.0.1")
        return (
            f"--cert-file={own.cert}", f"--key-file={own.key}", f"--trusted-ca-file={self.authority.file}",
            f"--user-certs={self.users}", f"--cacert={self.authority.file}", f"--cert={self.root.cert}",
            f"--key={self.root.key}",
        )  # fmt: skip


async def _prepare(store: Certified) -> None:
    async with m.Client(store.url, tls=store.tls) as client:
        await client.put("/open/key", "open")
        for name in ("root", ALICE, MALLORY):
            await client.auth.add_user(name, None)
        for role, user in (("root", "root"), ("opened", ALICE)):
            await client.auth.add_role(role)
            await client.auth.grant_role(user, role)
        await client.auth.grant_permission("opened", m.prefix("/open/"), "read")
        await client.auth.enable()


@contextlib.contextmanager
def certified(kind: str, folder: Path) -> Iterator[Certified]:
    """A muster, or an etcd."""
    authority = Authority(folder)
    host, root = authority.issue("host", "127.0.0.1", "localhost"), authority.issue("root", "root")
    users = folder / "users"
    users.mkdir()
    hers = authority.issue("console-alice", ALICE, common_name=ALICE)  # the name of a file says nothing
    for path, name in ((hers.cert, "one.pem"), (hers.key, "one-key.pem")):
        shutil.move(path, users / name)
    flags = (
        f"--cert-file={host.cert}", f"--key-file={host.key}", "--client-cert-auth",
        f"--trusted-ca-file={authority.file}",
    )  # fmt: skip
    with secure_host(kind, folder / kind, authority, root, *flags) as secure:
        store = Certified(authority, secure.url, folder, users, root)
        asyncio.run(_prepare(store))
        yield store
