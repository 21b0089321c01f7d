"""A real etcd of one member, in a directory of its own, on free ports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_ports

from .endpoints import GrpcEndpoint

ETCD = Path(sys.executable).parent / "etcd"


@contextmanager
def running_etcd(directory: Path, *flags: str) -> Iterator[GrpcEndpoint]:
    """A started etcd; it is stopped and its directory removed at the end."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            [str(ETCD), "--data-dir", str(directory / "data"), "--log-level", "error",
             "--unsafe-no-fsync", "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"default={peer}", *flags],
            stdout=log, stderr=log)
        try:
            endpoint = GrpcEndpoint(client.removeprefix("http://"))
            try:
                yield endpoint
            finally:
                endpoint.close()
        finally:
            process.terminate()
            process.wait(timeout=20)
            shutil.rmtree(directory / "data", ignore_errors=True)
