"""Patroni 4 with PostgreSQL, by its ``etcd3`` configuration, which speaks to the JSON gateway, and by its
``etcd`` configuration, which speaks version 2: a primary is killed, the replica takes over, and the old one
joins it again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.local_cluster import free_base_port, until
from tests.interop.hosts import Hosts
from tests.interop.toolchain import unavailable

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

_LIMIT_S = 120.0  # Patroni gives a leader's key 20 s
_PATRONI = Path(sys.executable).parent / "patroni"
_PASSWORD = "secret"


def _programs() -> Path:
    """Where PostgreSQL's programs lie."""
    found = shutil.which("postgres") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)), ""
    )
    return Path(found).resolve().parent


def _prefixes() -> list[list[str]]:
    """Ways to run a command as somebody whom PostgreSQL takes: it refuses to run as root. The second one
    may read what only root may, as this checkout or its Python may be."""
    if os.getuid():
        return [[]]
    plain = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return [plain, [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]]


def _prefix() -> list[str]:
    """The first one that works. Patroni starts its own Python again, which the first one's may not find: at
    its start it takes the system's modules for those that it may not read."""
    again = "import subprocess, sys, patroni; subprocess.run([sys.executable, '-c', ''], check=True)"
    for prefix in _prefixes():
        tried = subprocess.run(
            [*prefix, sys.executable, "-c", again], capture_output=True, cwd="/", check=False
        )
        if tried.returncode == 0:
            return prefix
    unavailable("Patroni, or a user named postgres that may run it")


class Member:
    """One PostgreSQL with its Patroni."""

    def __init__(
        self, index: int, directory: Path, store: dict[str, Any], port: int, prefix: list[str]
    ) -> None:
        """``store``: the part of its configuration that says where it keeps who leads."""
        self._prefix = prefix
        self.port, self._rest = port, port + 1
        self._data = directory / f"data{index}"
        self._log = directory / f"patroni{index}.log"
        self._config = directory / f"patroni{index}.yml"
        self._process: subprocess.Popen[bytes] | None = None
        users = {
            name: {"username": name, "password": _PASSWORD} for name in ("superuser", "replication", "rewind")
        }
        users["superuser"]["username"] = "postgres"
        self._config.write_text(
            yaml.safe_dump(
                {
                    "scope": "tried",
                    "name": f"member{index}",
                    **store,
                    "restapi": {
                        "listen": f"127.0.0.1:{self._rest}",
                        "connect_address": f"127.0.0.1:{self._rest}",
                    },
                    "bootstrap": {
                        "dcs": {
                            "ttl": 20,
                            "loop_wait": 2,
                            "retry_timeout": 5,
                            "postgresql": {"use_pg_rewind": True},
                        },
                        "initdb": [{"encoding": "UTF8"}, "data-checksums", "no-sync", {"locale": "C"}],
                    },
                    "postgresql": {
                        "listen": f"127.0.0.1:{port}",
                        "connect_address": f"127.0.0.1:{port}",
                        "data_dir": str(self._data),
                        "bin_dir": str(_programs()),
                        "pgpass": str(directory / f"pgpass{index}"),
                        "authentication": users,
                        "parameters": {"unix_socket_directories": str(directory), "fsync": "off"},
                        "pg_hba": [
                            "local all all trust",
                            "host all all 127.0.0.1/32 trust",
                            "host replication all 127.0.0.1/32 trust",
                        ],
                        "remove_data_directory_on_diverged_timelines": True,
                    },
                }
            )
        )
        self._config.chmod(0o644)  # for a user of its own

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        with self._log.open("ab") as log:
            environment = {"PATH": os.environ["PATH"], "HOME": str(self._data.parent), "LC_ALL": "C"}
            line = [*self._prefix, str(_PATRONI), str(self._config)]
            self._process = subprocess.Popen(
                line, stdout=log, stderr=log, cwd=self._data.parent, env=environment
            )

    def kill(self) -> None:
        """SIGKILL to Patroni and to PostgreSQL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        with contextlib.suppress(OSError, ValueError, IndexError):
            os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def state(self) -> dict[str, Any]:
        """What Patroni says of it; empty while it does not answer."""
        found: dict[str, Any] = {}
        url = f"http://127.0.0.1:{self._rest}/patroni"
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)
        return found

    def leads(self) -> bool:
        """Whether it is the primary."""
        return (self.state().get("role"), self.state().get("state")) == ("primary", "running")

    def follows(self) -> bool:
        """Whether it is a replica that gets what the primary writes."""
        found = self.state()
        return (found.get("role"), found.get("replication_state")) == ("replica", "streaming")

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement; what it finds."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            dbname="postgres",
            connect_timeout=10,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """The end of Patroni's log; empty before it was started."""
        return self._log.read_text()[-3000:] if self._log.exists() else ""


@pytest.fixture
def pairs(hosts: Hosts) -> Iterator[list[list[Member]]]:
    """Two members by either version, on three hosts of muster."""
    if not _PATRONI.exists() or not (_programs() / "initdb").exists():
        unavailable("needs Patroni and PostgreSQL")
    prefix = _prefix()
    found: list[list[Member]] = []
    with contextlib.ExitStack() as stack:
        for version in ("etcd3", "etcd"):
            directory = Path(tempfile.mkdtemp(prefix="patroni-", dir="/tmp"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            if prefix:
                shutil.chown(directory, "postgres", "postgres")
            store, port = {version: {"hosts": hosts.endpoints}}, free_base_port(1, 4)
            found.append([Member(i, directory, store, port + 2 * i, prefix) for i in range(2)])
            for member in found[-1]:
                stack.callback(member.kill)
        yield found


def _holds(member: Member) -> bool:
    """Whether it has both rows."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        return member.sql("SELECT n FROM tried ORDER BY n") == [(1,), (2,)]
    return False


def _takes_over(members: list[Member]) -> None:
    """A replica from its primary."""
    first, second = members
    try:
        first.start()
        until(first.leads, _LIMIT_S)
        first.sql("CREATE TABLE tried (n int)")
        first.sql("INSERT INTO tried VALUES (1)")
        second.start()
        until(second.follows, _LIMIT_S)
        until(lambda: second.sql("SELECT n FROM tried") == [(1,)], _LIMIT_S)
        first.kill()
        until(second.leads, _LIMIT_S)
        second.sql("INSERT INTO tried VALUES (2)")
        first.start()
        until(first.follows, _LIMIT_S)
        until(lambda: _holds(first), _LIMIT_S)
        assert second.leads()
    except AssertionError:
        print("\n".join(member.log() for member in members))
        raise


def test_replicas_take_over_from_killed_primaries_which_join_them_again(pairs: list[list[Member]]) -> None:
    """By either version at once: most of it is a wait for the end of a lease of 20 s, Patroni's shortest."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        for ended in [pool.submit(_takes_over, members) for members in pairs]:
            ended.result()
