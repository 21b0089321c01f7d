"""Messages, ranges, conditions, endpoints, and the names of both forms of the library."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import muster_client as m
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from muster_client import client, kv, lease, mirror, queueing, ranges, raw, stm, sync, v2, watch
from muster_client.admin import auth, maintenance, members
from muster_client.pb import rpc_pb2 as pb
from muster_client.recipes import barriers, locks, queues
from muster_client.services import config, cron, discovery, registry
from muster_client.sync import raw as sync_raw
from muster_client.v2 import sync as v2_sync
from muster_client.wire.endpoints import Endpoint, parsed

from cluster.pb import rpc_pb2 as ours

README = Path(__file__).parents[3] / "tools" / "client" / "README.md"


def shape(message: Descriptor) -> list[tuple[object, ...]]:
    """Fields by name, number and type, whatever the package is called."""

    def kind(of: Descriptor | EnumDescriptor | None) -> str | None:
        return None if of is None else of.full_name.partition(".")[2]

    return [(f.name, f.number, f.type, f.is_repeated, kind(f.message_type), kind(f.enum_type))
            for f in message.fields]


def test_messages_are_those_of_the_one_proto() -> None:
    mine, theirs = (file.DESCRIPTOR.message_types_by_name for file in (pb, ours))
    assert list(mine) == list(theirs)
    assert [shape(mine[name]) for name in mine] == [shape(theirs[name]) for name in theirs]


@pytest.mark.parametrize(("keys", "start", "end"), [
    (m.prefix("/a/"), b"/a/", b"/a0"),
    (m.prefix(b"a\xff"), b"a\xff", b"b"),
    (m.prefix(b"\xff"), b"\xff", b"\0"),
    (m.prefix(""), b"\0", b"\0"),
    (m.span("a", "c"), b"a", b"c"),
    (m.since("a"), b"a", b"\0"),
    (ranges.of("é"), "é".encode(), b""),
])  # fmt: skip
def test_ranges(keys: m.KeyRange, start: bytes, end: bytes) -> None:
    assert (keys.start, keys.end) == (start, end)


@pytest.mark.parametrize("value", [5, True, [104], 1.5])
def test_only_bytes_and_text_are_keys_and_values(value: Any) -> None:
    """``bytes(5)`` is five zeros: a port would be stored so."""
    for made in (lambda: m.put("a", value), lambda: m.prefix(value), lambda: ranges.data(value)):
        with pytest.raises(TypeError, match="bytes or str, not"):
            made()


def test_ranges_without_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="no key lies"):
        m.span("b", "a")
    with pytest.raises(ValueError, match="empty"):
        m.put("", "x")


def test_conditions_state_what_they_compare() -> None:
    found = m.when(
        m.key("a").value == "1", m.key("b").absent, m.key(m.prefix("c")).mod_revision < 7,
        m.key("d").lease != 3, m.key("e").version > 2,
    ).then(m.put("a", "2"), m.when(m.key("x").present).then(m.delete("x"))).otherwise(m.get("a")).request
    Compare = pb.Compare
    assert list(found.compare) == [
        Compare(key=b"a", target=Compare.VALUE, result=Compare.EQUAL, value=b"1"),
        Compare(key=b"b", target=Compare.CREATE, result=Compare.EQUAL, create_revision=0),
        Compare(key=b"c", range_end=b"d", target=Compare.MOD, result=Compare.LESS, mod_revision=7),
        Compare(key=b"d", target=Compare.LEASE, result=Compare.NOT_EQUAL, lease=3),
        Compare(key=b"e", target=Compare.VERSION, result=Compare.GREATER, version=2),
    ]
    assert [op.WhichOneof("request") for op in found.success] == ["request_put", "request_txn"]
    assert m.when().then(m.get("a")).reads_only
    assert not m.when().then(m.get("a")).otherwise(m.delete("a")).reads_only
    with pytest.raises(TypeError, match="compared with an int"):
        _ = m.key("a").version == "1"
    with pytest.raises(TypeError, match="bytes or str"):
        _ = m.key("a").value == 1


def test_endpoints() -> None:
    tls = m.Tls(server_name="x")
    assert parsed("a:1, http://b:2,https://c:3/,unix:/run/m,a:1") == (
        Endpoint("a:1", "a", 1), Endpoint("http://b:2", "b", 2),
        Endpoint("https://c:3/", "c", 3, tls=m.Tls()), Endpoint("unix:/run/m", path="/run/m"))
    assert parsed(["[::1]:1", "unixs:///run/m"], tls) == (
        Endpoint("[::1]:1", "::1", 1, tls=tls), Endpoint("unixs:///run/m", path="/run/m", tls=tls))
    assert parsed("HTTPS://c:3,Unix:/x") == (  # they were names that no host has
        Endpoint("HTTPS://c:3", "c", 3, tls=m.Tls()), Endpoint("Unix:/x", path="/x"))
    assert [one.authority for one in parsed("[::1]:1,b:2,unix:/x")] == ["[::1]:1", "b:2", "localhost"]
    for wrong in ("", ",", "host", "http://host"):
        with pytest.raises(ValueError, match="endpoint"):
            parsed(wrong)
    with pytest.raises(ValueError, match="together"):
        m.Tls(cert="a")


def test_a_file_that_is_of_no_use_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for tls in (m.Tls(ca=str(text)), m.Tls(cert=str(text), key=str(text)), m.Tls(ca=f"{text}.gone")):
        with pytest.raises(OSError, match=r"text\.pem"):
            tls.context()


def test_the_page_s_examples_name_what_is_there() -> None:
    page = README.read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", page)
    assert len(blocks) > 8
    for block in blocks:
        compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        where = v2 if "import v2" in block else m
        assert not [name for name in re.findall(r"\bm\.(\w+)", block) if not hasattr(m, name)]
        assert not [name for name in re.findall(r"\bclient\.(\w+)", block) if not hasattr(where.Client, name)]


def test_each_name_is_there_once_it_is_used() -> None:
    """What needs the connections alone loads nothing else."""
    for name in m.__all__:
        assert getattr(m, name) is not None
        assert name in dir(m)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = m.Nothing  # type: ignore[attr-defined]
    script = """
import sys, muster_client.wire.connections
assert not [name for name in sys.modules if name.startswith(("muster_client.client", "muster_client.pb"))]
from muster_client import *
assert Client.__module__ == "muster_client.client"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_it_needs_grpcio_and_protobuf_alone() -> None:
    """What the extras bring is asked for where it is used."""
    script = """
import sys
for name in ("h11", "cronsim", "pydantic", "opentelemetry"):
    sys.modules[name] = None
import muster_client, muster_client.sync, muster_client.telemetry, muster_client.services.channels
from muster_client.services.cron import following
assert following(5, "UTC")(1) == 5
for step in (lambda: following("* * * * *", "UTC"), muster_client.telemetry.Spans):
    try:
        step()
    except ImportError:
        continue
    raise AssertionError(step)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(("one", "other"), [
    (client.Client, sync.Client), (kv.Pages, sync.Pages), (watch.Watch, sync.Watch),
    (raw.Raw, sync_raw.Raw), (raw.Answers, sync_raw.Answers),
    (mirror.Mirror, sync.Mirror), (lease.Lease, sync.Lease), (queueing.Lock, sync.Lock),
    (queueing.Leadership, sync.Leadership), (queueing.Election, sync.Election),
    (locks.RWLock, sync.RWLock), (locks.Semaphore, sync.Semaphore), (barriers.Barrier, sync.Barrier),
    (barriers.DoubleBarrier, sync.DoubleBarrier), (queues.Queue, sync.Queue), (queues.Item, sync.Item),
    (queues.PriorityQueue, sync.PriorityQueue), (stm.Stm, sync.Stm), (auth.Auth, sync.Auth),
    (members.Members, sync.Members), (maintenance.Maintenance, sync.Maintenance),
    (registry.Registration, sync.Registration), (discovery.Discovery, sync.Discovery),
    (config.Config, sync.Config), (cron.Run, sync.Run), (v2.Client, v2_sync.Client),
])  # fmt: skip
def test_both_forms_have_the_same_names(one: type, other: type) -> None:
    """And parameters, but for time limits, which a caller of asyncio has otherwise."""
    only_async = {"ready", "next", "waiting"}
    for name, member in inspect.getmembers(one):
        if name.startswith("_") or name in only_async:
            continue
        twin = getattr(other, name, None)
        if twin is None:
            assert f"self.{name}" in inspect.getsource(other), f"{other.__name__}.{name}: not of each object"
            continue
        if callable(member):
            mine, theirs = (set(inspect.signature(f).parameters) for f in (member, twin))
            assert theirs - mine <= {"timeout"}, name
            assert mine - theirs <= {"on_change"}, name
