"""What operators do, namespaces, what calls are told to, and the API of version 2."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import muster_client as m
import pytest
from muster_client import sync, telemetry, v2
from muster_client.admin import snapshots
from muster_client.admin.auth import Permission
from muster_client.v2 import sync as v2_sync
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.interop.hosts import Hosts
from tests.interop.library.cutting import cutting

Run = Callable[[Coroutine[Any, Any, None]], None]
ETCDUTL = Path(sys.executable).parent / "etcdutl"


def test_users_and_roles(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all, user="root", password="secret") as client:
            auth = client.auth
            assert not (await auth.status()).enabled
            await auth.add_user("root", "secret")
            await auth.grant_role("root", "root")
            await auth.enable()
            try:
                await auth.add_role("reader")
                await auth.grant_permission("reader", m.prefix(directory), "read")
                await auth.add_user("ada", "pass")
                await auth.grant_role("ada", "reader")
                await auth.set_password("ada", "word")
                assert await auth.permissions("reader") == [Permission(m.prefix(directory), "read")]
                assert await auth.user_roles("ada") == ["reader"]
                assert sorted(await auth.users()) == ["ada", "root"]
                assert "reader" in await auth.roles()
                assert (await auth.status()).enabled
                async with m.Client(hosts.all, user="ada", password="word") as ada:
                    assert await ada.get(f"{directory}a") is None
                    with pytest.raises(m.PermissionDenied):
                        await ada.put(f"{directory}a", "1")
                await auth.revoke_permission("reader", m.prefix(directory))
                assert await auth.permissions("reader") == []
                await auth.revoke_role("ada", "reader")
                await auth.delete_role("reader")
                await auth.delete_user("ada")
            finally:
                await auth.disable()
                await auth.delete_user("root")
                with contextlib.suppress(m.ServerError):
                    await auth.delete_role("root")

    run(main())


def test_members(hosts: Hosts, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            members = await client.members.list()
            assert sorted(url for one in members for url in one.client_urls) == [
                f"http://{endpoint}" for endpoint in sorted(hosts.endpoints)]
            async with asyncio.timeout(20):  # a host that started just now counts as out of reach
                while True:
                    try:
                        added = await client.members.add(["http://127.0.0.1:1"], learner=True)
                        break
                    except m.Unavailable:
                        await asyncio.sleep(0.2)
            try:
                assert (added.learner, added.name) == (True, "")
                await client.members.update(added.id, ["http://127.0.0.1:2"])
                [found] = [one for one in await client.members.list() if one.id == added.id]
                assert found.peer_urls == ("http://127.0.0.1:2",)
                with pytest.raises(m.ServerError, match="in sync with leader"):
                    await client.members.promote(added.id)
            finally:
                await client.members.remove(added.id)
            assert await client.members.list(linearizable=False)

    run(main())


def test_maintenance(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            done = await client.put(f"{directory}a", "1")
            there = client.maintenance
            told = await there.statuses()
            assert list(told) == hosts.endpoints
            statuses = [one for one in told.values() if isinstance(one, m.Status)]
            assert len(statuses) == 3
            [leader] = [one for one in statuses if one.leads]
            assert leader.endpoint == hosts.endpoints[hosts.leader()]
            for name in hosts.endpoints:  # each has that revision before it is asked for its hash
                async with m.Client(name) as one:
                    await one.get("x")
            hashes = {(await there.hash_kv(name, revision=done.revision)).hash for name in hosts.endpoints}
            assert len(hashes) == 1
            assert await there.alarms() == ()
            await there.defragment(hosts.endpoints[0])
            other = next(one for one in statuses if not one.leads)
            await there.move_leader(other.member)
            async with asyncio.timeout(10):
                while not (await there.status(other.endpoint)).leads:
                    await asyncio.sleep(0.05)
            with pytest.raises(ValueError, match="no endpoint"):
                await there.status("elsewhere:1")

    run(main())


def test_a_snapshot_is_whole_or_not_there(
    hosts: Hosts, directory: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            for i in range(64):
                await client.put(f"{directory}{i}", b"x" * 20_000)
            seen: list[tuple[int, int]] = []
            path = tmp_path / "a.db"
            told = await client.maintenance.snapshot(path, on_progress=lambda *step: seen.append(step))
            data = path.read_bytes()
            assert (len(data), path.stat().st_mode & 0o777) == (told.size, 0o600)
            assert hashlib.sha256(data[:-32]).digest() == data[-32:] == bytes.fromhex(told.sha256)
            assert [left for _, left in seen][-1] == 0
            assert [size for size, _ in seen] == sorted(size for size, _ in seen)
            shown = await asyncio.to_thread(
                subprocess.run, [str(ETCDUTL), "snapshot", "status", str(path)], capture_output=True,
                text=True, timeout=60, check=False)
            assert shown.returncode == 0, shown.stderr
            # a first stream that is cut: the second one is whole
            limits = [(None, 300_000)]
            async with (
                cutting(hosts.endpoints[0], lambda n: limits[n] if n < 1 else (None, None)) as proxy,
                m.Client(proxy.address) as through,
            ):
                again = await through.maintenance.snapshot(tmp_path / "b.db")
                assert proxy.cuts
                assert hashlib.sha256((tmp_path / "b.db").read_bytes()[:-32]).hexdigest() == again.sha256
            monkeypatch.setattr(snapshots, "_ATTEMPTS", 1)
            async with (
                cutting(hosts.endpoints[0], lambda n: (None, 100_000)) as proxy,
                m.Client(proxy.address, timeout=5) as through,
            ):
                with pytest.raises(m.MusterError):
                    await through.maintenance.snapshot(tmp_path / "c.db")
            assert sorted(one.name for one in tmp_path.iterdir()) == ["a.db", "b.db"]

    run(main())


def test_a_namespace_has_keys_of_its_own(hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as whole, await whole.lease(20) as lease:
            space = whole.namespace(directory).namespace("n/")
            await whole.put(f"{directory}n", "outside")
            await whole.put(f"{directory}n0", "outside")
            async with (
                space.watch(m.EVERYTHING, previous=True) as watch, space.mirror(m.prefix("a")) as mirror,
            ):
                await space.put("a", "1", lease=lease)
                done = await space.put("a", "2", previous=True, lease=lease)
                assert [kv.key for kv in done.previous] == [b"a"]
                first, second = await watch.next(), await watch.next()
                assert isinstance(first, m.Put)
                assert isinstance(second, m.Put)
                assert second.previous is not None
                assert (first.key, second.previous.key) == (b"a", b"a")
                await mirror.wait_for(done.revision)
                assert mirror["a"].text == "2"
            assert (await whole.get(f"{directory}n/a")) is not None
            assert (await space.lease_info(lease)).keys == (b"a",)
            result = await space.when(m.key("a").value == "2").then(
                m.put("b", "1"), m.get(m.EVERYTHING), m.when().then(m.get("b")),
                m.delete("a", previous=True))
            assert [kv.key for kv in result.found(1).kvs] == [b"a", b"b"]
            inner, deleted = result.results[2], result.results[3]
            assert isinstance(inner, m.TxnResult)
            assert inner.found().kv is not None
            assert isinstance(deleted, m.Done)
            assert [kv.key for kv in deleted.previous] == [b"a"]
            for i in range(10):
                await space.put(f"c{i}", "")
            assert [kv.key async for kv in space.range(m.prefix("c"), page=3, descending=True)] == [
                f"c{i}".encode() for i in range(9, -1, -1)]
            assert await space.count(m.since("c5")) == 5
            assert await space.count(m.span("c0", "c3")) == 3
            async with space.lock("l", ttl=10) as lock:
                assert lock.key.startswith(b"l/")
                assert await space.when(lock.held).then(m.put("x", "1"))
                assert not await whole.namespace(f"{directory}n/").lock("l", lease=lease).try_acquire()
            assert (await space.delete(m.EVERYTHING)).deleted == 12
            assert await whole.count(m.prefix(f"{directory}n")) == 2
            await space.close()
            assert await whole.get(f"{directory}n0"), "its connections are the other's"

    run(main())


def test_calls_are_told(hosts: Hosts, directory: str, run: Run) -> None:
    told: list[telemetry.Call] = []
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def main() -> None:
        async with m.Client(hosts.all, observer=telemetry.Calls(told.append)) as client:
            await client.put(f"{directory}a", "1")
            await client.compact((await client.put(f"{directory}a", "2")).revision)
            with pytest.raises(m.Compacted):
                await client.get(f"{directory}a", revision=1)
        assert [call.method for call in told] == ["KV/Put", "KV/Put", "KV/Compact", "KV/Range"]
        assert all(set(call.endpoints) <= set(hosts.endpoints) for call in told)
        assert told[0].seconds > 0
        assert [type(call.error) for call in told] == [type(None)] * 3 + [m.Compacted]
        tracer = provider.get_tracer("test")
        async with m.Client(hosts.all, observer=telemetry.Spans(provider)) as client:
            with tracer.start_as_current_span("outer") as outer:
                await client.namespace(directory).get("a")
        own, parent = exporter.get_finished_spans()
        assert own.name == "etcdserverpb.KV/Range"
        assert own.parent is not None
        assert own.parent.span_id == parent.context.span_id == outer.get_span_context().span_id
        assert own.attributes is not None
        assert own.attributes["server.address"] in hosts.endpoints

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    run(main())


def test_administration_without_asyncio(hosts: Hosts, directory: str, tmp_path: Path) -> None:
    with sync.Client(hosts.all) as client:
        assert not client.auth.status().enabled
        assert len(client.members.list()) == 3
        assert len(client.maintenance.statuses()) == 3
        seen: list[int] = []
        saved = client.maintenance.snapshot(tmp_path / "a", on_progress=lambda size, left: seen.append(left))
        assert saved.size == (tmp_path / "a").stat().st_size
        assert seen[-1] == 0


@pytest.fixture
def old(hosts: Hosts) -> list[str]:
    """Where the version 2 API is."""
    endpoints = [f"http://{endpoint}" for endpoint in hosts.endpoints]
    try:
        v2_sync.Client(endpoints).get("/")
    except v2.NotServed:
        pytest.skip("this etcd has no API of version 2")
    return endpoints


def test_the_tree_of_version_2(old: list[str], directory: str, run: Run) -> None:
    async def main() -> None:
        client = v2.Client(old)
        with pytest.raises(v2.KeyNotFound):
            await client.get(f"{directory}a")
        done = await client.set(f"{directory}a", "1 & ä", exists=False)
        assert (done.action, done.node.value) == ("create", "1 & ä")
        with pytest.raises(v2.NodeExists):
            await client.set(f"{directory}a", "2", exists=False)
        with pytest.raises(v2.CompareFailed):
            await client.set(f"{directory}a", "2", previous_value="0")
        waiting = asyncio.create_task(client.wait(f"{directory}a"))
        changes = client.watch(directory, index=done.node.modified + 1, recursive=True)
        while not waiting.done():  # whether the wait has begun is not told
            await client.set(f"{directory}a", "2", previous_index=0)
            await asyncio.wait((waiting,), timeout=0.2)
        assert (await waiting).node.value == "2"
        assert (await anext(changes)).node.value == "2"
        in_order = [(await client.append(f"{directory}q", str(i))).node.key for i in range(3)]
        assert in_order == sorted(in_order)
        listed = await client.get(f"{directory}q", recursive=True, sorted=True)
        assert [node.value for node in listed.node.nodes] == list("012")
        with pytest.raises(v2.NotAFile):
            await client.delete(f"{directory}q")
        with pytest.raises(v2.DirectoryNotEmpty):
            await client.delete(f"{directory}q", directory=True)
        await client.delete(f"{directory}q", recursive=True)
        await client.set(f"{directory}t", "x", ttl=100)
        assert ((await client.refresh(f"{directory}t", 50)).node.ttl or 0) <= 50
        gave_up = asyncio.create_task(client.wait(f"{directory}nothing"))
        await asyncio.sleep(0.05)
        gave_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gave_up
        dead = v2.Client(["http://127.0.0.1:1", *old], timeout=5)
        assert (await dead.get(f"{directory}a")).node.value == "2"
        with pytest.raises(m.Unreachable) as told:
            await v2.Client("http://127.0.0.1:1").set("a", "b")
        assert not told.value.maybe_done

    run(main())


def test_users_of_version_2(old: list[str], directory: str, run: Run) -> None:
    async def everywhere(enabled: bool) -> None:
        """Each host has it: etcd's answer from what they have themselves."""
        async with asyncio.timeout(20):
            for host in map(v2.Client, old):
                while (await host.ask("GET", "/auth/enable")).told() != {"enabled": enabled}:
                    await asyncio.sleep(0.02)

    async def main() -> None:
        nobody, root = v2.Client(old), v2.Client(old, user="root", password="secret")
        assert len((await nobody.ask("GET", "/members")).told()["members"]) == 3
        (await nobody.ask("PUT", "/auth/users/root", body={"user": "root", "password": "secret"})).told()
        (await nobody.ask("PUT", "/auth/enable")).told()
        await everywhere(enabled=True)
        try:
            refused = await nobody.ask("PUT", "/auth/roles/a", body={"role": "a"})
            assert refused.status == 401
            with pytest.raises(v2.Unauthorized):
                refused.told()
            with pytest.raises(v2.Unauthorized):
                await v2.Client(old, user="root", password="wrong").set(f"{directory}a", "1")
            assert (await root.set(f"{directory}a", "1")).node.value == "1"
            with pytest.raises(v2.V2Error, match="does not exist"):
                (await root.ask("GET", "/auth/users/nobody")).told()
        finally:
            (await root.ask("DELETE", "/auth/enable")).told()
            await everywhere(enabled=False)
            (await nobody.ask("DELETE", "/auth/users/root")).told()

    run(main())


def test_version_2_without_asyncio(old: list[str], directory: str) -> None:
    client = v2_sync.Client(old)
    done = client.set(f"{directory}a", "1")
    assert client.ask("GET", f"/keys{directory}a", query={"quorum": True}).told()["node"]["value"] == "1"
    assert next(client.watch(f"{directory}a", index=done.node.modified)).node.value == "1"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.wait(f"{directory}nothing", timeout=0.3)
    assert time.monotonic() - began < 3
    assert client.delete(f"{directory}a").previous
