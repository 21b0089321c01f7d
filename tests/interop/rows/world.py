"""Three hosts of two shards and a proxy, asked over HTTP and by both command lines."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forks
from tests.cluster.local_cluster import LocalCluster, command, environment, local_cluster, until
from tests.interop.v2.v2_hosts import FORM, Answer, Server, serves
from tests.ports import free_ports

BIN = Path(sys.executable).parent
ETCDCTL = (str(BIN / "etcdctl"),)
PATIENT = ("--timeout", "40s", "--total-timeout", "60s")
LIMIT_S = 60.0
Json = dict[str, Any]


class Got(Answer):
    """An answer with its JSON."""

    @property
    def json(self) -> Json:
        """The body."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def node(self) -> Json:
        """The node that it shows."""
        found = self.json["node"]
        assert isinstance(found, dict)
        return found

    @property
    def refusal(self) -> tuple[int, int, str]:
        """Status, code and cause of an error."""
        return self.status, int(self.json["errorCode"]), str(self.json.get("cause", ""))


class Waiting:
    """A wait whose head has come."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self.response = response

    def body(self) -> bytes:
        """What came when it had ended."""
        with contextlib.closing(self._connection):
            return self.response.read()

    def event(self) -> Json:
        """Its event."""
        found = json.loads(self.body())
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """Give it up."""
        self._connection.close()


@dataclass
class Latest:
    """The index of the last change that anybody made."""

    index: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, index: int) -> None:
        """A change was answered."""
        with self.lock:
            self.index = max(self.index, index)


@dataclass
class Site:
    """One client URL, of a member or of the proxy. A plain read waits for the last change: it may be old, as
    in etcd, at any member but the one that was asked to write."""

    name: str
    server: Server
    latest: Latest

    @property
    def url(self) -> str:
        """For clients."""
        return f"http://{self.server.address}"

    def ask(self, method: str, path: str, body: str | None = None, kind: str = FORM) -> Got:
        """One request."""
        answer = self.server.ask(method, path, body, kind)
        if method != "GET" and answer.status < 300:
            self.latest.saw(int(answer.headers.get("x-etcd-index", 0)))
        return Got(answer.status, answer.headers, answer.body)

    def settle(self) -> None:
        """Until plain reads here see what was written anywhere."""
        index = max(self.latest.index, self.server.index())
        until(lambda: int(self.server.ask("GET", "/v2/keys/").headers["x-etcd-index"]) >= index)

    def get(self, key: str) -> Got:
        """A read, ``key`` with its query."""
        if self.latest.index:

            def answered() -> Got | None:
                found = self.ask("GET", f"/v2/keys{key}")
                index = int(found.headers.get("x-etcd-index", 0))
                return (
                    found if (found.status >= 400 and index == 0) or index >= self.latest.index else None
                )

            found = until(answered)
            assert isinstance(found, Got)
            return found
        return self.ask("GET", f"/v2/keys{key}")

    def put(self, key: str, form: str = "") -> Got:
        """A write, as ``curl -XPUT -d``."""
        return self.ask("PUT", f"/v2/keys{key}", form)

    def post(self, key: str, form: str = "") -> Got:
        """A child in order."""
        return self.ask("POST", f"/v2/keys{key}", form)

    def delete(self, key: str) -> Got:
        """A deletion."""
        return self.ask("DELETE", f"/v2/keys{key}")

    def value(self, key: str) -> str | None:
        """A value, None if the key is not there."""
        found = self.get(key)
        return str(found.node["value"]) if found.status == 200 else None

    def names(self, key: str) -> list[str]:
        """The last parts of a directory's keys, sorted."""
        found = self.get(f"{key}?sorted=true")
        nodes = found.node.get("nodes", []) if found.status == 200 else []
        return [node["key"].rpartition("/")[2] for node in nodes]

    def wait(self, key: str) -> Waiting:
        """A wait that has begun: it sees what is written from now on."""
        self.settle()
        return Waiting(*self.server.wait(f"/v2/keys{key}"))

    def wipe(self) -> None:
        """Delete all that is listed, and ``/_h``."""
        for name in [
            *(node["key"] for node in self.ask("GET", "/v2/keys/?quorum=true").node.get("nodes", [])),
            "/_h",
        ]:
            self.ask("DELETE", f"/v2/keys{name}?recursive=true")


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    code: int
    out: str
    err: str


class Background:
    """A command line that goes on."""

    def __init__(self, line: list[str], env: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._process = forks.popen(line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def nudged(self, change: Callable[[], object], lines: int = 1) -> None:
        """Until there are so many lines, make a change again and again: who knows when it began."""

        def enough() -> bool:
            if len(self.lines) < lines and self._process.poll() is None:
                change()
            return len(self.lines) >= lines or self._process.poll() is not None

        until(enough, look_s=0.3)

    def until(self, line: str) -> None:
        """Until a line is there."""
        until(lambda: line in self.lines)

    def end(self, number: int | None = None) -> int:
        """Its exit code, after a signal if one is given."""
        if number is not None:
            self._process.send_signal(number)
        try:
            return self._process.wait(LIMIT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """It is gone."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@dataclass
class Ctl:
    """etcdctl or musterctl at one site."""

    line: tuple[str, ...]
    site: Site
    ours: bool

    @property
    def env(self) -> dict[str, str]:
        """Version 2, this site, nothing else of ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCDCTL_", "MUSTERCTL_"))}
        return {**kept, "ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": self.site.url}

    def bare(self, *words: str, stdin: str = "", limit_s: float = 2 * LIMIT_S, **env: str) -> Done:
        """A line as it stands."""
        done = forks.run([*self.line, *words], input=stdin, env={**self.env, **env}, capture_output=True,
                         text=True, timeout=limit_s, check=False)  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *words: str, stdin: str = "") -> Done:
        """A line at this very site, patient, when it sees all that was written."""
        self.site.settle()
        return self.bare("--no-sync", *PATIENT, *words, stdin=stdin)

    def ok(self, *words: str) -> str:
        """What a line prints that must succeed."""
        done = self.run(*words)
        assert (done.code, done.err) == (0, ""), (words, done)
        return done.out

    def error(self, *words: str, code: int = 4) -> str:
        """What a line prints that must fail, without its index."""
        done = self.run(*words)
        assert (done.code, done.out) == (code, ""), (words, done)
        return done.err.rpartition(" [")[0] if " [" in done.err else done.err.rstrip("\n")

    def start(self, *words: str) -> Background:
        """A line that goes on, at this very site."""
        self.site.settle()
        return Background([*self.line, "--no-sync", *PATIENT, *words], self.env)


class World:
    """All of it."""

    def __init__(self, cluster: LocalCluster, proxy: str, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.endpoints = cluster.endpoints()
        latest = Latest()
        self.members = [
            Site(f"member {i}", Server(address), latest) for i, address in enumerate(self.endpoints, 1)
        ]
        self.proxy = Site("the proxy", Server(proxy), latest)
        self.sites = [self.members[0], self.members[2], self.proxy]
        self.tools = [
            Ctl(forks.MUSTERCTL, self.members[0], ours=True),
            Ctl(ETCDCTL, self.members[2], ours=False),
            Ctl(ETCDCTL, self.proxy, ours=False),
        ]
        self.kept: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What several rows look at, made by the first one of them."""
        if name not in self.kept:
            try:
                self.kept[name] = make()
            except BaseException as error:
                self.kept[name] = error
                raise
        if isinstance(self.kept[name], BaseException):
            raise AssertionError(f"{name} failed before") from self.kept[name]
        return self.kept[name]


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """It serves, at every site."""
    extra = ("--heartbeat-interval=100", "--election-timeout=2000")
    with (
        local_cluster(folder / "c", 3, "--shards=2", extra=extra) as cluster,
        contextlib.ExitStack() as stack,
    ):
        (port,) = free_ports(1)
        line = command(
            "proxy", "--endpoints=" + ",".join(cluster.endpoints()), f"--data-dir={folder / 'p'}",
            "--fronts=1",
            f"--listen-client-urls=http://127.0.0.1:{port}", *extra,
        )  # fmt: skip
        log = stack.enter_context(open(folder / "proxy.log", "wb"))
        process = stack.enter_context(
            forks.popen(line, stdout=log, stderr=log, env=environment(), cwd=folder)
        )
        stack.callback(process.terminate)
        found = World(cluster, f"127.0.0.1:{port}", folder)
        until(lambda: all(serves(site.server) for site in (*found.members, found.proxy)))
        yield found


def until_over(seconds: float) -> None:
    """A time that a row names passes."""
    time.sleep(seconds)
