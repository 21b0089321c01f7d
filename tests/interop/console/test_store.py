"""What the console asks of a store, on muster and on etcd."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable

import httpx
import muster_client as m
import pytest
from fastapi import FastAPI
from muster_client import Client

from tests.interop.console.conftest import Step
from tests.ports import free_ports
from tools.console.app import add_doors
from tools.console.names import shown
from tools.console.sessions import Sessions, Target
from tools.console.store import cluster, leases, members, raw, services, shards, txn
from tools.console.store.hub import Hub, Told
from tools.console.store.keys import copies, edits, history, tree
from tools.console.store.keys.outline import Outline

Run = Callable[[Step], None]


async def fill(client: Client, names: list[str]) -> None:
    """Keys whose values are their names."""
    for at in range(0, len(names), 100):
        await client.when().then(*(m.put(name, name) for name in names[at : at + 100]))


def lines(outline: Outline) -> list[str]:
    """The rows as a person reads them."""
    return [f"{'  ' * row.depth}{row.kind[0]} {shown(row.name)}" for row in outline.rows()]


def test_a_directory_is_listed_by_pages_whatever_lies_below(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        names = [f"{directory}{n:02}/{i:03}" for n in range(8) for i in range(130)]
        names += [f"{directory}key-{n:02}" for n in range(30)] + [f"{directory}03"]
        await fill(client, names)
        found: list[bytes] = []
        after, pages = b"", 0
        while True:
            page = await tree.listing(client, directory.encode(), after=after, limit=7)
            found += [entry.name for entry in page.entries]
            pages += 1
            if page.after is None:
                break
            after = page.after
        expected = {name.encode()[len(directory) :] for name in names}
        expected = {name[: name.find(b"/") + 1] or name for name in expected}
        assert found == sorted(expected)
        assert pages == -(-len(expected) // 7)
        assert (await tree.count(client, f"{directory}03/".encode()))[0] == 130

    run(steps)


def test_a_page_of_large_directories_is_shorter(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        await fill(client, [f"{directory}{n:03}/{i:03}" for n in range(60) for i in range(20)])
        page = await tree.listing(client, directory.encode())
        assert 40 < len(page.entries) < 60
        assert page.after is not None
        rest = await tree.listing(client, directory.encode(), after=page.after)
        assert [int(entry.name[:-1]) for entry in (*page.entries, *rest.entries)] == list(range(60))

    run(steps)


def test_an_open_tree_follows_changes(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        base = directory.encode()
        await fill(client, [f"{directory}a/1", f"{directory}a/2", f"{directory}b"])
        outline = Outline(client)
        await outline.start(base)
        await outline.reveal(base + b"a/2")
        assert lines(outline) == ["d a/", "  k 1", "  k 2", "k b"]
        await outline.count()
        revision = (await client.put(f"{directory}a/15", "")).revision
        await client.delete(f"{directory}b")
        await client.put(f"{directory}c/d", "")
        last = (await client.delete(m.prefix(f"{directory}a/"))).revision
        changes: list[m.Event] = []
        async with client.watch(m.prefix(directory), revision=revision) as watch:
            async for event in watch:
                changes += [event, *watch.waiting()]
                if watch.revision > last:
                    break
        for change in changes:
            outline.apply([change])
        outline.drop_empty()
        assert lines(outline) == ["d c/"]

    run(steps)


def test_a_long_directory_is_held_by_a_window(
    run: Run, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.console.store.keys.outline.WINDOW", 300)

    async def steps(client: Client) -> None:
        await fill(client, [f"{directory}{n:04}" for n in range(700)])
        outline = Outline(client)
        await outline.start(directory.encode())
        assert lines(outline)[0] == "k 0000"
        while lines(outline)[-1].startswith("m"):
            await outline.more(directory.encode())
            assert len(lines(outline)) <= 302
        assert lines(outline)[0].startswith("f")
        assert lines(outline)[-1] == "k 0699"
        await outline.first(directory.encode())
        assert lines(outline)[0] == "k 0000"
        await outline.reveal(f"{directory}0555".encode())
        assert "k 0555" in lines(outline)

    run(steps)


def test_nothing_that_another_wrote_is_overwritten(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        key = f"{directory}key".encode()
        first = await edits.save(client, key, b"one", seen=0)
        with pytest.raises(edits.Overtaken):
            await edits.save(client, key, b"other", seen=0)
        second = await edits.save(client, key, b"two", seen=first)
        with pytest.raises(edits.Overtaken) as told:
            await edits.save(client, key, b"late", seen=first)
        assert told.value.kv is not None
        assert (told.value.kv.value, told.value.kv.mod_revision) == (b"two", second)
        with pytest.raises(edits.Overtaken):
            await edits.remove(client, key, seen=first)
        await edits.remove(client, key, seen=second)
        with pytest.raises(edits.Overtaken) as told:
            await edits.save(client, key, b"late", seen=second)
        assert told.value.kv is None

    run(steps)


def test_an_edit_keeps_the_lease(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        lease = await leases.grant(client, 60)
        done = await client.put(f"{directory}key", "one", lease=lease)
        await edits.save(client, f"{directory}key".encode(), b"two", seen=done.revision)
        kv = await client.get(f"{directory}key")
        assert kv is not None
        assert kv.lease == lease
        await leases.revoke(client, lease)
        assert await client.get(f"{directory}key") is None

    run(steps)


def test_a_key_is_renamed_alone_and_at_once(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        old, below, new = (f"{directory}{name}".encode() for name in ("old/", "old/1", "new/"))
        lease = await leases.grant(client, 60)
        await client.put(old, "own", lease=lease)
        await client.put(below, "below")
        await edits.duplicate(client, old, new, move=True)
        found = [(kv.key, kv.text, kv.lease) async for kv in client.range(m.prefix(directory))]
        assert found == [(new, "own", lease), (below, "below", 0)]
        with pytest.raises(edits.Overtaken) as told:
            await edits.duplicate(client, new, below)
        assert told.value.kv is not None
        with pytest.raises(edits.Overtaken) as told:
            await edits.duplicate(client, old, new)
        assert told.value.kv is None
        with pytest.raises(ValueError, match="the old one"):
            await edits.duplicate(client, new, new)
        await edits.duplicate(client, new, old)
        assert await client.count(m.prefix(directory)) == 3

    run(steps)


def test_a_delete_of_a_prefix_is_looked_at_first(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        await fill(client, [f"{directory}{n:02}" for n in range(40)])
        found = await edits.removal(client, directory.encode(), first=3)
        assert (found.count, [key[-2:] for key in found.first]) == (40, [b"00", b"01", b"02"])
        assert await edits.remove_prefix(client, directory.encode()) == 40

    run(steps)


def test_history_has_every_change_that_is_kept(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        key = f"{directory}key"
        revisions = [(await client.put(key, str(n))).revision for n in range(3)]
        revisions.append((await client.delete(key)).revision)
        revisions.append((await client.put(key, "again")).revision)
        found = await history.of_key(client, key.encode())
        assert [one.revision for one in found.revisions] == revisions[::-1]
        assert [one.kv and one.kv.text for one in found.revisions] == ["again", None, "2", "1", "0"]
        assert found.whole
        await client.compact(revisions[1])
        after = await history.of_key(client, key.encode())
        assert [one.revision for one in after.revisions] == revisions[:0:-1]
        assert after.oldest == revisions[1] == await history.oldest_revision(client, b"/")
        latest = await history.of_key(client, key.encode(), most=2)
        assert [one.revision for one in latest.revisions] == revisions[:2:-1]
        assert not latest.whole
        gone = (await client.delete(key)).revision
        assert [one.revision for one in (await history.of_key(client, key.encode(), most=2)).revisions] == [
            gone,
            revisions[-1],
        ]

    run(steps)


def test_the_store_is_seen_as_of_a_revision(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        await client.put(f"{directory}a", "")
        revision = (await client.put(f"{directory}b", "")).revision
        await client.delete(f"{directory}a")
        outline = Outline(client, revision=revision)
        await outline.start(directory.encode())
        assert lines(outline) == ["k a", "k b"]

    run(steps)


def test_a_file_of_a_prefix_makes_it_anew(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        await client.put(f"{directory}text", "text")
        await client.put(directory.encode() + b"\xff", b"\x00\xff")
        await fill(client, [f"{directory}{n:03}" for n in range(150)])
        before = [(kv.key, kv.value) async for kv in client.range(m.prefix(directory))]
        for form in ("json", "yaml"):
            file = await copies.export(client, m.prefix(directory), form)  # type: ignore[arg-type]
            await client.delete(m.prefix(directory))
            assert await copies.load(client, copies.parsed(file)) == 152
            assert [(kv.key, kv.value) async for kv in client.range(m.prefix(directory))] == before

    run(steps)


def test_a_change_from_before_the_list_changes_nothing(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        first = await client.put(f"{directory}a", "1")
        await client.delete(f"{directory}a")
        await client.put(f"{directory}a", "2")
        outline = Outline(client, flat=m.prefix(directory))
        await outline.start()
        async with client.watch(m.prefix(directory), revision=first.revision) as watch:
            put, deleted, again = [await watch.next() for _ in range(3)]
        for late in (put, deleted, again):
            assert late is not None
            outline.apply([late])
            assert [row.path for row in outline.rows()] == [f"{directory}a".encode()]

    run(steps)


def test_who_follows_a_range_knows_when_no_change_is_missed_any_more(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        hub, keys, told = Hub(client), m.prefix(directory), list[m.Event]()
        leave = hub.follow(keys, lambda one: told.extend(one.events))
        await hub.begun(keys)
        await client.put(f"{directory}a", "")
        while not told:
            await asyncio.sleep(0.01)
        leave()
        hub.follow(keys, lambda one: None)
        waits = asyncio.create_task(hub.begun(keys))
        await asyncio.sleep(0)
        await hub.close()
        await waits
        await hub.begun(keys)

    run(steps)


def test_fifty_browsers_cost_one_watch(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        hub = Hub(client)
        ready = asyncio.Event()
        told: list[list[m.Event]] = [[] for _ in range(50)]

        def listener(into: list[m.Event]) -> Callable[[Told], None]:
            def listen(one: Told) -> None:
                into.extend(one.events)
                ready.set()

            return listen

        leave = [hub.follow(m.prefix(directory), listener(into)) for into in told]
        await ready.wait()
        assert hub.watches == 1
        for n in range(20):
            await client.put(f"{directory}{n}", "")
        while any(len(into) < 20 for into in told):
            await asyncio.sleep(0.01)
        assert all(into == told[0] for into in told)
        for end in leave:
            end()
            end()
        assert hub.watches == 0
        await hub.close()

    run(steps)


def test_locks_and_elections_are_seen_by_their_leases(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        async with client.lock(f"{directory}lock"):
            waits = asyncio.create_task(client.lock(f"{directory}lock").__aenter__())
            while True:
                found = await leases.contests(client, (await leases.every(client)).rows)
                mine = [one for one in found if one.name == f"{directory}lock".encode()]
                if mine and len(mine[0].contenders) == 2:
                    break
                await asyncio.sleep(0.01)
            holder, waiter = mine[0].contenders
            assert holder.since < waiter.since
            waits.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waits

    run(steps)


def test_the_cluster_is_seen(run: Run, server: str) -> None:
    async def steps(client: Client) -> None:
        hosts = cluster.Hosts()
        found = await cluster.picture(client, hosts)
        (member,) = found.members
        assert member.is_leader
        assert not member.error
        assert member.revision >= 1
        assert member.size_bytes > 0
        told = await shards.look(client, found.members, None)
        assert [one.shard for one in told.replicas] in ([], [0, 1])
        assert all(one.is_leader for one in told.replicas)
        assert (told.table is None) == (told.growth is None) == (not told.replicas)
        await cluster.defragment(hosts, member)
        await cluster.disarm(client)
        await hosts.close()

    run(steps)


def test_a_lease_is_kept_alive_once(run: Run, server: str) -> None:
    async def steps(client: Client) -> None:
        lease = await leases.grant(client, 600)
        await client.renew(lease)
        await leases.revoke(client, lease)
        with pytest.raises(m.LeaseNotFound):
            await client.renew(lease)
        async with Client(server) as reader:
            raw.make_read_only(reader)
            with pytest.raises(raw.ReadOnly):
                await reader.renew(lease)

    run(steps)


def test_services_live_as_long_as_their_leases(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        lease = await leases.grant(client, 60)
        for n in range(3):
            await client.put(f"{directory}web/{n}", "up", lease=lease if n else 0)
        await client.put(f"{directory}db/primary/eu", "up")
        await client.put(f"{directory}no-service", "")
        found = await services.registry(client, directory.encode())
        assert [(one.name, one.alive, len(one.instances)) for one in found.services] == [
            (b"db", 0, 1),
            (b"web", 2, 3),
        ]
        assert [one.name for one in found.services[0].instances] == [b"primary/eu"]
        await leases.revoke(client, lease)
        found = await services.registry(client, directory.encode())
        assert [(one.name, len(one.instances)) for one in found.services] == [(b"db", 1), (b"web", 1)]
        assert found.whole

    run(steps)


def test_a_form_is_a_transaction(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        await client.put(f"{directory}a", "1")
        form = txn.Form(
            [
                txn.Compare(f"{directory}a", "value", "=", "1"),
                txn.Compare(f"{directory}b", "version", "<", "1"),
            ],
            [txn.Step("put", f"{directory}b", "2"), txn.Step("get", f"{directory}a..{directory}c")],
            [txn.Step("delete", f"{directory}a")],
        )
        result, lines = await txn.send(client, form)
        assert result.succeeded
        assert [line.partition("  ")[0] for line in lines] == ["OK", f"{directory}a = 1", f"{directory}b = 2"]
        for deleted in (1, 0):
            result, lines = await txn.send(client, form)
            assert not result.succeeded
            assert lines == [f"deleted {deleted}"]

    run(steps)


def test_a_learner_is_added_moved_and_removed(muster: str) -> None:
    # on muster alone: etcd may drop a change of members that follows another at once, and never answers
    async def steps(client: Client) -> None:
        peer = f"http://127.0.0.1:{free_ports(1)[0]}"
        member = (await client.members.add(members.urls(peer), learner=True)).id
        with pytest.raises(m.ServerError):  # it has not started
            await client.members.promote(member)
        found = await cluster.picture(client, hosts := cluster.Hosts())
        (new,) = [one for one in found.members if one.id == member]
        assert new.error == "it has not started"
        assert new.is_learner
        assert new.peer_urls == (peer,)
        (old,) = [one for one in found.members if one.id != member]
        await client.members.update(old.id, old.peer_urls)
        await client.members.remove(member)
        assert [one.id for one in (await cluster.picture(client, hosts)).members] == [old.id]
        await hosts.close()
        with pytest.raises(ValueError, match="peer URLs look like"):
            members.urls("10.0.0.5:2380")

    async def main() -> None:
        async with Client(muster) as client, asyncio.timeout(60):
            await steps(client)

    asyncio.run(main())


def test_a_read_only_client_changes_nothing(run: Run, directory: str) -> None:
    async def steps(client: Client) -> None:
        raw.make_read_only(client)
        assert await client.get(directory) is None
        for step in (
            client.put(directory, ""), client.delete(directory), client.when().then(m.put("a", "")).commit(),
            client.compact(1), leases.grant(client, 5), leases.revoke(client, 5), cluster.disarm(client),
        ):  # fmt: skip
            with contextlib.suppress(raw.ReadOnly):
                await step
                assert step.__name__ == "disarm", "there are no alarms: nothing is sent"
        assert await client.get(directory) is None

    run(steps)


def test_a_snapshot_is_downloaded_whole(server: str) -> None:
    async def main() -> None:
        sessions = Sessions(Target((server,)))
        app = FastAPI()
        add_doors(app, sessions, secure=False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            answer = await client.get("/snapshot", timeout=60)
        await sessions.close()
        assert answer.status_code == 200
        assert "snapshot.db" in answer.headers["content-disposition"]
        data, checksum = answer.content[:-32], answer.content[-32:]
        assert hashlib.sha256(data).digest() == checksum

    asyncio.run(main())
