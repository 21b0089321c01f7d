"""TLS at both sides: of browsers with the console, and of the console with its hosts."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import muster_client as m

from tests.authority import Authority
from tests.cluster.local_cluster import environment
from tests.interop.secure_hosts import secure_host
from tests.ports import free_ports
from tools.console.sessions import Sessions, Target
from tools.console.store import cluster, shards
from tools.console.store.v2 import nodes


async def _seen(target: Target) -> None:
    sessions = Sessions(target)
    identity = sessions.nobody
    picture = await cluster.picture(identity.client, identity.hosts)
    assert [(one.is_leader, one.error) for one in picture.members] == [(True, "")]
    found = await shards.look(identity.client, picture.members, target.tls)
    assert [one.is_leader for one in found.replicas] == [True]
    await sessions.recorder.look()
    assert sessions.recorder.down == {}
    assert (await nodes.read(identity.version2, "/")).is_directory
    await sessions.close()


def test_a_console_of_hosts_with_tls_is_served_by_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    host = authority.issue("host", "127.0.0.1", "localhost")
    user, own = authority.issue("user", "user"), authority.issue("console", "127.0.0.1")
    flags = (
        f"--cert-file={host.cert}", f"--key-file={host.key}", "--client-cert-auth",
        f"--trusted-ca-file={authority.file}",
    )  # fmt: skip
    (listen,) = free_ports(1)
    here = f"https://127.0.0.1:{listen}"
    console_flags = (
        f"--listen={here}", f"--cert-file={own.cert}", f"--key-file={own.key}",
        f"--cacert={authority.file}", f"--cert={user.cert}", f"--key={user.key}",
    )  # fmt: skip
    with secure_host("muster", tmp_path / "muster", authority, user, *flags) as secure:
        line = [sys.executable, "-m", "tools.muster.cli", "console", f"--endpoints={secure.url}"]
        with subprocess.Popen(
            [*line, *console_flags], env=environment(), stdout=subprocess.PIPE, text=True
        ) as console:
            try:
                assert console.stdout is not None
                assert here in console.stdout.readline()
                context = ssl.create_default_context(cafile=str(authority.file))
                with httpx.Client(base_url=here, verify=context, timeout=20) as client:
                    assert "muster" in client.get("/cluster").text
            finally:
                console.terminate()
        tls = m.Tls(str(authority.file), str(user.cert), str(user.key))
        asyncio.run(_seen(Target((secure.url,), tls)))
