"""Rows on commands: what the articles type, and what they show. ``key_commands`` has those on keys. Each
check is given a command line at one site whose tree is empty: musterctl at a member, etcdctl at another one
and through the proxy.

Where articles differ from a real etcdctl, musterctl alone does what they show.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.local_cluster import until
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Background, Ctl, World

COMMANDS = Checks()
row = COMMANDS.row

_HELP = [
    "backup",
    "cluster-health",
    "mk",
    "mkdir",
    "rm",
    "rmdir",
    "get",
    "ls",
    "set",
    "setdir",
    "update",
    "updatedir",
    "watch",
    "exec-watch",
    "member",
    "user",
    "role",
    "auth",
    "help",
    "--debug",
    "--no-sync",
    "--output",
    "--discovery-srv",
    "--peers",
    "--endpoint",
    "--endpoints",
    "--cert-file",
    "--key-file",
    "--ca-file",
    "--username",
    "--timeout",
    "--total-timeout",
    "--help",
    "--version",
]


def index_of(ctl: Ctl, key: str) -> int:
    """The index of a key's last change."""
    return int(ctl.site.get(key).node["modifiedIndex"])


@contextmanager
def going(ctl: Ctl, *words: str) -> Iterator[Background]:
    """A line that goes on meanwhile."""
    started = ctl.start(*words)
    try:
        yield started
    finally:
        started.kill()


@row("S0-020")
def functions(ctl: Ctl, world: World) -> None:
    with going(ctl, "watch", "-f", "-r", "/d") as watch:
        watch.nudged(lambda: ctl.site.put("/d/x", "value=1"), lines=2)
        assert watch.lines[:2] == ["[set] /d/x", "1"]
    assert ctl.ok("mk", "/l0", "me") == "me\n"
    assert ctl.site.put("/l?prevExist=false", "value=me").status == 201
    assert ctl.site.put("/l?prevExist=false", "value=you").status == 412


@row("S0-058")
def help_page(ctl: Ctl, world: World) -> None:
    done = ctl.bare("-h")
    assert (done.code, done.err) == (0, "")
    assert [word for word in _HELP if word not in done.out] == []
    assert "NAME:" in done.out
    assert "VERSION:" in done.out


@row("S0-059")
def debug(ctl: Ctl, world: World) -> None:
    done = ctl.run("--debug", "set", "/a", "b")
    assert (done.code, done.out) == (0, "b\n")
    assert f'cURL Command: curl -X PUT {ctl.site.url}/v2/keys/a -d "value=b"' in done.err


@row("S0-060")
def no_sync(ctl: Ctl, world: World) -> None:
    """What the members publish is asked in place of the address that was given, unless told not to."""
    ctl.ok("set", "/a", "b")
    done = ctl.bare("--debug", *("--timeout", "40s", "--total-timeout", "60s"), "get", "--quorum", "/a")
    assert (done.code, done.out) == (0, "b\n")
    got = re.search(r"got endpoints\((.*)\) after sync", done.err)
    assert got is not None
    assert sorted(got[1].split(",")) == sorted(f"http://{endpoint}" for endpoint in world.endpoints)
    done = ctl.run("--debug", "get", "/a")
    assert f"Cluster-Endpoints: {ctl.site.url}\n" in done.err
    assert "after sync" not in done.err


@row("S0-061")
def output(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/a", "1")
    assert json.loads(ctl.ok("-o", "json", "get", "/a"))["node"]["value"] == "1"
    assert ctl.ok("-o", "extended", "get", "/a").startswith("Key: /a\n")
    assert ctl.ok("--output", "simple", "get", "/a") == "1\n"


@row("S0-063")
def endpoints(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/a", "1")
    ctl.site.settle()
    for option in ("--peers", "-C", "--endpoint", "--endpoints"):
        address = (
            ctl.site.server.address if ctl.ours else ctl.site.url
        )  # etcdctl of a newer Go wants the scheme
        done = ctl.bare("--no-sync", "--timeout", "40s", "--total-timeout", "60s", option, address, "ls",
                        ETCDCTL_ENDPOINTS="")  # fmt: skip
        assert (done.code, done.out) == (0, "/a\n"), (option, done)


@row("S0-066")
def timeouts(ctl: Ctl, world: World) -> None:
    if ctl.site is world.proxy:
        return  # nobody asks it
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = ctl.bare("--no-sync", "--total-timeout", "1s", "--endpoints", url, "get", "/a")
        assert (done.code, "context deadline exceeded" in done.err) == (4, True), done
        # either limit ends it before the other's default, 2s and 5s
        limits = ("--timeout", "500ms", "--total-timeout", "1900ms")
        done = ctl.bare("--no-sync", *limits, "--endpoints", url, "get", "/a")
        assert done.code == 4
        assert "exceeded header timeout" in done.err


@row("S0-067")
def version(ctl: Ctl, world: World) -> None:
    for option in ("-v", "--version"):
        lines = ctl.bare(option).out.splitlines()
        assert len(lines) == 2
        assert lines[1] == "API version: 2"
    assert "NAME:" in ctl.bare("--help").out


@row("S0-104", "S1-109")
def watch(ctl: Ctl, world: World) -> None:
    with going(ctl, "watch", "testdir/testkey") as watching:
        watching.nudged(lambda: ctl.site.put("/testdir/testkey", "value=Hello watch"))
        assert watching.end() == 0
    assert watching.lines == ["Hello watch"]


@row("S0-105", "S1-111")
def watch_forever(ctl: Ctl, world: World) -> None:
    with going(ctl, "watch", "--forever", "/message") as watching:
        watching.nudged(lambda: ctl.site.put("/message", "value=first"))
        ctl.site.put("/message", "value=second")
        ctl.site.put("/message", "value=third")
        watching.until("third")
        assert watching.end(signal.SIGINT) == 0
    assert [line for line in watching.lines if line != "first"] == ["second", "third"]


@row("S0-106")
def watch_after(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/k", "one")
    old = index_of(ctl, "/k")
    ctl.ok("set", "/k", "two")
    assert ctl.ok("watch", "--after-index", str(old - 1), "/k") == "one\n"
    assert ctl.ok("watch", "--after-index", str(old), "/k") == "two\n"


@row("S1-110")
def watch_recursive(ctl: Ctl, world: World) -> None:
    with going(ctl, "watch", "--recursive", "/") as watching:
        watching.nudged(lambda: ctl.site.put("/message", "value=changed"), lines=2)
        assert watching.end() == 0
    assert watching.lines == ["[set] /message", "changed"]


@row("S0-108")
def exec_watch(ctl: Ctl, world: World) -> None:
    # no option before the key: the form of articles, which etcdctl takes in this version only with one
    option = () if ctl.ours else ("--after-index", "0")
    with going(ctl, "exec-watch", *option, "testdir/testkey", "--", "sh", "-c", "echo ran") as watching:
        watching.nudged(lambda: ctl.site.put("/testdir/testkey", "value=1"))
        watching.nudged(
            lambda: ctl.site.put("/testdir/testkey", "value=2"), lines=len(watching.lines) + 1
        )
        assert set(watching.lines) == {"ran"}
        assert watching.end(signal.SIGINT) == 0


@row("S0-109")
def exec_watch_after(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/k", "one")
    old = index_of(ctl, "/k")
    line = (
        "exec-watch",
        "--after-index",
        str(old - 1),
        "/k",
        "--",
        "sh",
        "-c",
        "echo $ETCD_WATCH_VALUE",
    )
    with going(ctl, *line) as watching:
        watching.until("one")
        assert watching.end(signal.SIGINT) == 0


@row("S1-112")
def exec_watch_recursive(ctl: Ctl, world: World) -> None:
    with going(
        ctl, "exec-watch", "--recursive", "/", "--", "sh", "-c", 'echo "change detected."'
    ) as watching:
        watching.nudged(lambda: ctl.site.put("/a", "value=1"))
        watching.nudged(lambda: ctl.site.put("/b/c", "value=2"), lines=len(watching.lines) + 1)
        assert set(watching.lines) == {"change detected."}


@row("S0-111", "S1-071", "S1-078", "S1-079", "S1-080", "S1-086", "S3-048")
def member_list(ctl: Ctl, world: World) -> None:
    """Names and URLs are those of the flags; the proxy is none of them."""

    def listed() -> list[str]:
        lines = ctl.run("member", "list").out.splitlines()
        return lines if sum("isLeader=true" in line for line in lines) == 1 and len(lines) == 3 else []

    found = {}
    for line in until(listed):
        shape = r"([0-9a-f]+): name=(\S+) peerURLs=(\S+) clientURLs=(\S+) isLeader=(true|false)"
        member = re.fullmatch(shape, line)
        assert member is not None, line
        found[member[2]] = (member[3], member[4])
    base = world.cluster.base_port
    assert found == {
        f"host{i}": (f"http://127.0.0.1:{base + 100 * i + 1}", f"http://{endpoint}")
        for i, endpoint in enumerate(world.endpoints)
    }


@row("S0-113", "S1-068", "S1-069", "S1-070")
def member_add(ctl: Ctl, world: World) -> None:
    """One that never starts is added, changed and removed."""

    def members() -> dict[str, list[str]]:
        found = ctl.site.ask("GET", "/v2/members").json["members"]
        return {member["id"]: member["peerURLs"] for member in found}

    def added() -> str:
        done = ctl.run(
            "member", "add", "etcd3", "http://127.0.0.1:9"
        )  # refused while peers have just met
        return done.out if done.code == 0 else ""

    out = str(until(added))
    first, _, name, cluster, state = out.splitlines()
    new = re.fullmatch(r"Added member named etcd3 with ID ([0-9a-f]+) to cluster", first)
    assert new is not None
    try:
        assert (name, state) == ('ETCD_NAME="etcd3"', 'ETCD_INITIAL_CLUSTER_STATE="existing"')
        assert sorted(cluster.removeprefix('ETCD_INITIAL_CLUSTER="').rstrip('"').split(",")) == sorted(
            ["etcd3=http://127.0.0.1:9"]
            + [f"host{i}=http://127.0.0.1:{world.cluster.base_port + 100 * i + 1}" for i in range(3)]
        )
        until(lambda: members().get(new[1]) == ["http://127.0.0.1:9"])
        body = '{"peerURLs":["http://127.0.0.1:10"]}'
        changed = ctl.site.ask("PUT", f"/v2/members/{new[1]}", body, "application/json")
        assert (changed.status, changed.body) == (204, "")
        until(lambda: members().get(new[1]) == ["http://127.0.0.1:10"])
        assert f"{new[1]}[unstarted]: peerURLs=http://127.0.0.1:10\n" in ctl.run("member", "list").out
    finally:
        removed = ctl.site.ask("DELETE", f"/v2/members/{new[1]}")
    assert (removed.status, removed.body) == (204, "")
    until(lambda: len(members()) == 3)
    body = '{"peerURLs":["http://127.0.0.1:9"]}'

    def added_again() -> str:
        answer = ctl.site.ask("POST", "/v2/members", body, "application/json; charset=utf-8")
        return str(answer.json["id"]) if answer.status == 201 else ""

    again = until(added_again)
    assert ctl.ok("member", "remove", again) == f"Removed member {again} from cluster\n"
    until(lambda: len(members()) == 3)


@row("S0-118")
def help_of_a_command(ctl: Ctl, world: World) -> None:
    for word in ("help", "h"):
        done = ctl.bare(word, "set")
        assert done.code == 0
        assert "--swap-with-value" in done.out


@row("S1-072", "S1-089")
def data_directory(ctl: Ctl, world: World) -> None:
    for host in range(3):
        shard = world.cluster.data_dir / f"host{host}" / "member" / "shard-0"
        assert (shard / "log").is_dir()
        assert (shard / "state").is_dir()


@row("S2-009")
def log_level(ctl: Ctl, world: World) -> None:
    """A program that follows a switch, changed by hand."""
    level, site = ["info"], ctl.site
    waiting = site.wait("/app/level?wait=true")

    def follow() -> None:
        level[0] = waiting.event()["node"]["value"]

    program = threading.Thread(target=follow)
    program.start()
    assert ctl.ok("set", "/app/level", "debug") == "debug\n"
    program.join(60)
    assert level == ["debug"]
