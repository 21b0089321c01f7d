"""Clients that show certificates, and what is said where they are wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import muster_client as m
import pytest
from muster_client import v2

from tests.authority import Authority
from tests.interop.secure_hosts import secure_host

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("name", ["muster", "etcd"])
def test_tls(name: str, tmp_path: Path, run: Run) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    host, user = authority.issue("host", "127.0.0.1", "localhost"), authority.issue("user", "user")
    flags = (f"--cert-file={host.cert}", f"--key-file={host.key}", "--client-cert-auth",
             f"--trusted-ca-file={authority.file}")  # fmt: skip
    files = {"cert": str(user.cert), "key": str(user.key)}

    async def main(endpoint: str) -> None:
        async with m.Client(endpoint, tls=m.Tls(ca=str(authority.file), **files)) as client:
            await client.put("a", "1")
            async with client.watch("a") as watch, await client.lease(5) as lease:
                await client.put("a", "2", lease=lease)
                assert isinstance(await anext(watch), m.Put)
        async with m.Client(endpoint, tls=m.Tls(ca=str(authority.file)), timeout=1) as nobody:
            with pytest.raises(m.MusterError) as refused:
                await nobody.put("a", "3")
            assert not refused.value.maybe_done
        async with m.Client(endpoint, tls=m.Tls(ca=str(other.file), **files), timeout=1) as mistrusting:
            with pytest.raises(m.Unreachable, match=r"(?i)certificate|handshake|ssl"):
                await mistrusting.put("a", "3")
        async with m.Client(endpoint.removeprefix("https://"), timeout=1) as plain:
            with pytest.raises(m.MusterError):
                await plain.get("a")
        if name == "muster":  # whose version 2 API is on by default
            tls = m.Tls(ca=str(authority.file), **files)
            old = v2.Client(endpoint, tls=tls)
            assert (await old.set("/a", "1")).node.value == "1"
            named = v2.Client(endpoint, tls=dataclasses.replace(tls, server_name="localhost"))
            assert (await named.get("/a")).node.value == "1"
            for wrong in (m.Tls(ca=str(other.file), **files), m.Tls(ca=str(authority.file)),
                          dataclasses.replace(tls, server_name="elsewhere")):
                with pytest.raises(m.MusterError) as refused:
                    await v2.Client(endpoint, tls=wrong, timeout=2).set("/a", "2")
            assert (await old.get("/a")).node.value == "1"

    with secure_host(name, tmp_path / name, authority, user, *flags) as secure:
        run(main(secure.url))
