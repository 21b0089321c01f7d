"""Rows on commands that read, list, change and remove keys and directories. Each check is given a command
line, as in ``commands``."""

from __future__ import annotations

import json
import re

from tests.interop.rows.commands import index_of
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Ctl, World

KEY_COMMANDS = Checks()
row = KEY_COMMANDS.row


@row("S0-003")
def a_key(ctl: Ctl, world: World) -> None:
    assert ctl.ok("set", "/a", "1") == "1\n"
    assert ctl.ok("get", "/a") == "1\n"


@row("S0-068")
def tree(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "testkey", "1")
    ctl.ok("set", "/cluster1/node2/testkey", "1")
    assert ctl.ok("ls", "-r", "--sort", "/").splitlines() == [
        "/cluster1", "/cluster1/node2", "/cluster1/node2/testkey", "/testkey",
    ]  # fmt: skip


@row("S0-070", "S0-074")
def set_and_get(ctl: Ctl, world: World) -> None:
    assert ctl.ok("set", "/testdir/testkey", "Hello world") == "Hello world\n"
    assert ctl.ok("get", "/testdir/testkey") == "Hello world\n"


@row("S0-073")
def swap_by_index(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/m", "v")
    now = index_of(ctl, "/m")
    assert ctl.ok("set", "--swap-with-index", str(now), "/m", "x") == "x\n"
    found = ctl.error("set", "--swap-with-index", "1", "/m", "y")
    assert found == f"Error:  101: Compare failed ([1 != {index_of(ctl, '/m')}])"


@row("S0-075", "S1-093")
def get_nothing(ctl: Ctl, world: World) -> None:
    assert ctl.error("get", "/testdir/testkey2") == "Error:  100: Key not found (/testdir)"
    ctl.ok("set", "/testdir/testkey", "Hello")
    assert ctl.error("get", "/testdir/testkey2") == "Error:  100: Key not found (/testdir/testkey2)"
    assert re.fullmatch(
        r"Error:  100: Key not found \(/notexist\) \[\d+\]\n", ctl.run("get", "/notexist").err
    )


@row("S0-076")
def get_sorted(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/a", "1")
    assert ctl.ok("get", "--sort", "/a") == "1\n"


@row("S0-077")
def get_consistent(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/a", "1")
    if ctl.ours:
        assert ctl.ok("get", "--consistent", "/a") == "1\n"
    else:
        assert ctl.ok("get", "--quorum", "/a") == "1\n"


@row("S0-078", "S1-100")
def update(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/message", "hello")
    assert ctl.ok("update", "/message", "I'am changed") == "I'am changed\n"
    assert ctl.ok("get", "/message") == "I'am changed\n"


@row("S0-079", "S1-101")
def update_nothing(ctl: Ctl, world: World) -> None:
    assert ctl.error("update", "/notexist", "x") == "Error:  100: Key not found (/notexist)"


@row("S0-081", "S1-103")
def remove(ctl: Ctl, world: World) -> None:
    assert ctl.ok("mk", "/foo", "bar") == "bar\n"
    assert ctl.ok("rm", "/foo") == "PrevNode.Value: bar\n"
    assert ctl.error("get", "/foo") == "Error:  100: Key not found (/foo)"


@row("S0-082")
def remove_nothing(ctl: Ctl, world: World) -> None:
    assert ctl.error("rm", "/none") == "Error:  100: Key not found (/none)"


@row("S0-083")
def remove_directory(ctl: Ctl, world: World) -> None:
    ctl.ok("mkdir", "/empty")
    assert ctl.ok("rm", "--dir", "/empty") == ""
    ctl.ok("set", "/d/x", "1")
    assert ctl.error("rm", "--dir", "/d") == "Error:  108: Directory not empty (/d)"


@row("S0-084")
def remove_all(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/d/x", "1")
    assert ctl.ok("rm", "--recursive", "/d") == ""
    assert ctl.ok("ls") == ""


@row("S0-086")
def remove_by_index(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/m", "v")
    now = index_of(ctl, "/m")
    assert ctl.error("rm", "--with-index", "1", "/m") == f"Error:  101: Compare failed ([1 != {now}])"
    assert ctl.ok("rm", "--with-index", str(now), "/m") == "\n"
    assert ctl.site.value("/m") is None


@row("S0-087", "S1-097")
def make(ctl: Ctl, world: World) -> None:
    assert ctl.ok("mk", "/foo", "bar") == "bar\n"
    assert ctl.error("mk", "/foo", "bar") == "Error:  105: Key already exists (/foo)"


@row("S0-089")
def make_directory(ctl: Ctl, world: World) -> None:
    assert ctl.ok("mkdir", "testdir2") == ""
    assert ctl.error("mkdir", "testdir2") == "Error:  105: Key already exists (/testdir2)"


@row("S0-091")
def set_directory(ctl: Ctl, world: World) -> None:
    assert ctl.ok("setdir", "testdir3") == ""
    assert ctl.ok("ls", "-p") == "/testdir3/\n"


@row("S0-092")
def set_directory_again(ctl: Ctl, world: World) -> None:
    """etcdctl answers with error 102 there; what articles promise is musterctl's."""
    ctl.ok("mkdir", "--ttl", "500", "/d")
    if ctl.ours:
        assert ctl.ok("setdir", "--ttl", "5000", "/d") == ""
        (node,) = ctl.site.get("/").node["nodes"]
        assert 4000 < node["ttl"] <= 5000
    else:
        assert ctl.error("setdir", "--ttl", "5000", "/d") == "Error:  102: Not a file (/d)"


@row("S0-094")
def update_directory(ctl: Ctl, world: World) -> None:
    assert ctl.error("updatedir", "testdir2") == "Error:  100: Key not found (/testdir2)"
    ctl.ok("mkdir", "testdir2")
    assert ctl.ok("updatedir", "testdir2") == ""


@row("S0-095")
def update_directory_ttl(ctl: Ctl, world: World) -> None:
    ctl.ok("mkdir", "/d")
    found = json.loads(ctl.ok("-o", "json", "updatedir", "--ttl", "900", "/d"))
    assert found["action"] == "update"
    assert 800 < found["node"]["ttl"] <= 900


@row("S0-096")
def remove_empty(ctl: Ctl, world: World) -> None:
    ctl.ok("setdir", "dir1")
    assert ctl.ok("rmdir", "dir1") == ""
    ctl.ok("set", "/key", "v")
    assert ctl.ok("rmdir", "/key") == "PrevNode.Value: v\n"


@row("S0-097", "S1-107")
def remove_filled(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/dir/testkey", "v")
    assert ctl.error("rmdir", "/dir") == "Error:  108: Directory not empty (/dir)"
    assert ctl.ok("rm", "--recursive", "/dir") == ""
    assert ctl.site.names("/") == []


@row("S0-098", "S0-099", "S0-100", "S0-101", "S0-102", "S1-108")
def lists(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/testdir/testkey", "1")
    ctl.ok("mkdir", "testdir2")
    ctl.ok("set", "/dir/testkey", "1")
    assert sorted(ctl.ok("ls").splitlines()) == ["/dir", "/testdir", "/testdir2"]
    assert ctl.ok("ls", "dir") == "/dir/testkey\n"
    assert ctl.ok("ls", "--sort", "/").splitlines() == ["/dir", "/testdir", "/testdir2"]
    assert sorted(ctl.ok("ls", "--recursive", "/").splitlines()) == [
        "/dir", "/dir/testkey", "/testdir", "/testdir/testkey", "/testdir2",
    ]  # fmt: skip
    assert ctl.ok("ls", "-p", "--sort").splitlines() == ["/dir/", "/testdir/", "/testdir2/"]


@row("S1-020", "S1-021")
def session(ctl: Ctl, world: World) -> None:
    assert ctl.ok("ls", "-p", "/") == ""
    assert ctl.ok("set", "p1/p2/v1", "hello") == "hello\n"
    assert ctl.ok("get", "p1/p2/v1") == "hello\n"
    assert ctl.ok("ls", "-p", "/") == "/p1/\n"
    assert '"value":"hello"' in ctl.site.get("/p1/p2/v1").body
    ctl.ok("mkdir", "p1/p3")
    assert ctl.ok("update", "p1/p2/v1", "x", "--ttl", "60") == "x\n"
    assert ctl.ok("rm", "p1", "--recursive") == ""


@row("S1-091", "S1-092")
def extended(ctl: Ctl, world: World) -> None:
    assert ctl.ok("set", "/message", "hello, etcd") == "hello, etcd\n"
    assert ctl.ok("get", "/message") == "hello, etcd\n"
    index = index_of(ctl, "/message")
    assert ctl.ok("-o", "extended", "get", "/message") == (
        f"Key: /message\nCreated-Index: {index}\nModified-Index: {index}\nTTL: 0\nIndex: {index}\n\n"
        "hello, etcd\n"
    )


@row("S1-095", "S1-096")
def swap_by_value(ctl: Ctl, world: World) -> None:
    ctl.ok("set", "/message", "hello, etcd")
    found = ctl.error("set", "--swap-with-value", "hello, world", "/message", "goodbye, etcd")
    assert found == "Error:  101: Compare failed ([hello, world != hello, etcd])"
    line = ("set", "--swap-with-value", "hello, etcd", "/message", "goodbye, etcd")
    assert ctl.ok(*line) == "goodbye, etcd\n"


@row("S1-098", "S1-099")
def in_order(ctl: Ctl, world: World) -> None:
    assert ctl.ok("mk", "--in-order", "/queue", "job1") == "job1\n"
    assert ctl.ok("mk", "--in-order", "/queue", "job2") == "job2\n"
    names = ctl.ok("ls", "--sort", "/queue").splitlines()
    assert names == sorted(names)
    assert all(re.fullmatch(r"/queue/\d{20}", name) for name in names)
    assert [ctl.ok("get", name) for name in names] == ["job1\n", "job2\n"]


@row("S1-104", "S1-105")
def remove_by_value(ctl: Ctl, world: World) -> None:
    ctl.ok("mk", "/foo", "bar")
    assert (
        ctl.error("rm", "--with-value", "wrong", "/foo")
        == "Error:  101: Compare failed ([wrong != bar])"
    )
    assert ctl.ok("rm", "--with-value", "bar", "/foo") == "\n"


@row("S1-106")
def directories(ctl: Ctl, world: World) -> None:
    assert ctl.ok("mkdir", "/dir") == ""
    assert ctl.ok("mkdir", "/dir/subdir/") == ""
    assert ctl.ok("rmdir", "/dir/subdir/") == ""
