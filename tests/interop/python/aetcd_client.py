"""The PyPI client aetcd (asyncio, grpcio): KV, transactions, watches, leases, locks."""

from __future__ import annotations

import asyncio
import time

import aetcd
from aetcd import rtypes
from run import LIMIT_S, PREFIX, addresses, equal


def key(name: str) -> bytes:
    return (PREFIX + name).encode()


async def kv(client: aetcd.Client) -> None:
    equal(await client.get(key("none")), None, "a key that is not there")
    await client.put(key("a"), b"1")
    put = await client.put(key("a"), b"2", prev_kv=True)
    equal(put.prev_kv.value, b"1", "prev_kv")
    found = await client.get(key("a"))
    equal((found.value, found.version), (b"2", 2), "get")
    equal(found.mod_revision, put.header.revision, "mod_revision")
    for name in ("c", "b"):
        await client.put(key(name), name.encode())
    listed = await client.get_prefix(PREFIX.encode(), sort_order="descend")
    equal([kv.key for kv in listed], [key("c"), key("b"), key("a")], "get_prefix, descending")
    equal([kv.value for kv in await client.get_range(key("a"), key("c"))], [b"2", b"b"], "get_range")
    equal(await client.replace(key("a"), b"2", b"3"), True, "replace of the right value")
    equal(await client.replace(key("a"), b"2", b"4"), False, "replace of a wrong value")
    equal((await client.delete(key("a"), prev_kv=True)).prev_kv.value, b"3", "prev_kv of a delete")
    equal(await client.delete(key("a")), None, "delete again")
    equal((await client.delete_prefix(PREFIX.encode())).deleted, 2, "delete_prefix")
    equal(len([member async for member in client.members()]), 3, "members")
    equal((await client.status()).version[:2], "3.", "version")


async def transaction(client: aetcd.Client) -> None:
    t = client.transactions
    await client.put(key("t"), b"1")
    for new, expected in ((b"2", True), (b"3", False)):
        succeeded, answers = await client.transaction(
            [t.value(key("t")) == b"1", t.version(key("t")) > 0], [t.put(key("t"), new)], [t.get(key("t"))]
        )
        equal(succeeded, expected, f"compare and set to {new!r}")
    equal(answers[0][0][0], b"2", "what the second sees")


async def watch(client: aetcd.Client) -> None:
    events = await client.watch_prefix(key("w/"), prev_kv=True)
    await client.put(key("w/a"), b"1")
    await client.put(key("w/a"), b"2")
    await client.delete(key("w/a"))
    found = []
    async for event in events:
        before = event.prev_kv.value if event.prev_kv else b""
        found.append((event.kind, event.kv.value, before))
        if len(found) == 3:
            await events.cancel()
            break
    kind = rtypes.EventKind
    equal(found, [(kind.PUT, b"1", b""), (kind.PUT, b"2", b"1"), (kind.DELETE, b"", b"2")], "events")
    put = await client.put(key("w/b"), b"3")
    old = await client.watch_once(key("w/b"), timeout=LIMIT_S, start_revision=put.header.revision)
    equal(old.kv.value, b"3", "a watch from the past")


async def lease(client: aetcd.Client) -> None:
    kept, left = await client.lease(600), await client.lease(2)
    equal(kept.ttl, 600, "granted TTL")
    await client.put(key("l"), b"1", lease=kept)
    await client.put(key("m"), b"1", lease=left)
    equal(list(await kept.keys()), [key("l")], "keys of the lease")
    equal((await kept.refresh()).TTL, 600, "TTL of a refresh")
    began = time.monotonic()
    while await client.get(key("m")) is not None:
        if time.monotonic() - began > LIMIT_S:
            raise AssertionError("the key of a lease of 2 s does not go")
        await asyncio.sleep(0.05)
    if time.monotonic() - began < 1.5:
        raise AssertionError(f"a lease of 2 s ended after {time.monotonic() - began} s")
    await kept.revoke()
    equal(await client.get(key("l")), None, "the key of a revoked lease")


async def lock(client: aetcd.Client) -> None:
    host, port = addresses()[1]
    async with aetcd.Client(host=host, port=port, timeout=30) as other:
        first, second = client.lock(key("lock"), ttl=30), other.lock(key("lock"), ttl=30)
        equal(await first.acquire(), True, "acquire")
        equal(await second.acquire(timeout=1), False, "acquire of a held lock")
        waiting = asyncio.create_task(second.acquire(timeout=30))
        equal(await first.release(), True, "release")
        equal(await waiting, True, "acquire of a lock that was given back")
        equal(await first.is_acquired(), False, "the first does not hold it")
        async with client.lock(key("another")) as third:
            equal(await third.is_acquired(), True, "as a context manager")
        equal(await second.release(), True, "release")


async def main() -> None:
    host, port = addresses()[0]
    async with aetcd.Client(host=host, port=port, timeout=30) as client:
        for check in (kv, transaction, watch, lease, lock):
            await check(client)
            print("ok", check.__name__, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
