"""The PyPI client etcd3 (threads, grpcio): KV, transactions, watches, leases, locks."""

from __future__ import annotations

import io
import threading

import etcd3
from run import PREFIX, addresses, equal, take, until


def kv(client: etcd3.Etcd3Client) -> None:
    equal(client.get(PREFIX + "none"), (None, None), "a key that is not there")
    client.put(PREFIX + "a", "1")
    client.put(PREFIX + "a", "2")
    value, meta = client.get(PREFIX + "a")
    equal((value, meta.key, meta.version), (b"2", (PREFIX + "a").encode(), 2), "get")
    for name in ("c", "b"):
        client.put(PREFIX + name, name)
    found = [
        meta.key.decode().removeprefix(PREFIX) for _, meta in client.get_prefix(PREFIX, sort_order="descend")
    ]
    equal(found, ["c", "b", "a"], "get_prefix, descending")
    found = [value for value, _ in client.get_range(PREFIX + "a", PREFIX + "c")]
    equal(found, [b"2", b"b"], "get_range")
    equal(client.put_if_not_exists(PREFIX + "a", "3"), False, "put_if_not_exists of a key that is there")
    equal(client.put_if_not_exists(PREFIX + "d", "3"), True, "put_if_not_exists of a new key")
    equal(client.replace(PREFIX + "d", "3", "4"), True, "replace of the right value")
    equal(client.replace(PREFIX + "d", "3", "5"), False, "replace of a wrong value")
    equal(client.delete(PREFIX + "a"), True, "delete")
    equal(client.delete(PREFIX + "a"), False, "delete again")
    equal(client.delete_prefix(PREFIX).deleted, 3, "delete_prefix")
    equal(len(list(client.members)), 3, "members")
    equal(client.status().version[:2], "3.", "version")
    equal(list(client.list_alarms()), [], "alarms")
    snapshot = io.BytesIO()
    client.snapshot(snapshot)
    equal(len(snapshot.getvalue()) % 512, 32, "size of a snapshot modulo 512")


def transaction(client: etcd3.Etcd3Client) -> None:
    key = PREFIX + "t"
    t = client.transactions

    def compare_and_set(old: str, new: str) -> tuple[bool, list[object]]:
        return client.transaction([t.value(key) == old, t.version(key) > 0], [t.put(key, new)], [t.get(key)])

    client.put(key, "1")
    equal(compare_and_set("1", "2")[0], True, "the first")
    succeeded, answers = compare_and_set("1", "3")
    equal((succeeded, answers[0][0][0]), (False, b"2"), "the second, and what it sees")
    succeeded, answers = client.transaction([t.create(key) != 0], [t.delete(key), t.get(key)], [])
    equal((succeeded, answers[1]), (True, []), "get after delete")


def watch(client: etcd3.Etcd3Client) -> None:
    events, cancel = client.watch_prefix(PREFIX + "w/", prev_kv=True)
    client.put(PREFIX + "w/a", "1")
    client.put(PREFIX + "w/a", "2")
    client.delete(PREFIX + "w/a")
    found = [(type(event).__name__, event.value, event.prev_value) for event in take(events, 3)]
    cancel()
    equal(found, [("PutEvent", b"1", b""), ("PutEvent", b"2", b"1"), ("DeleteEvent", b"", b"2")], "events")
    meta = client.put(PREFIX + "w/b", "3").header
    old, cancel = client.watch(PREFIX + "w/b", start_revision=meta.revision)
    equal(take(old, 1)[0].value, b"3", "a watch from the past")
    cancel()
    client.compact(meta.revision)
    old, cancel = client.watch(PREFIX + "w/b", start_revision=1)
    try:
        take(old, 1)
    except etcd3.exceptions.RevisionCompactedError as error:
        if error.compacted_revision < meta.revision:
            raise AssertionError(f"compacted revision {error.compacted_revision}") from error
    else:
        raise AssertionError("a watch of the compacted past was not refused")


def lease(client: etcd3.Etcd3Client) -> None:
    kept, left = client.lease(600), client.lease(2)
    equal(kept.granted_ttl, 600, "granted TTL")
    client.put(PREFIX + "l", "1", lease=kept)
    client.put(PREFIX + "m", "1", lease=left)
    equal([bytes(key).decode() for key in kept.keys], [PREFIX + "l"], "keys of the lease")
    equal(kept.refresh()[0].TTL, 600, "TTL of a refresh")
    took = until(lambda: client.get(PREFIX + "m")[0] is None, "the key of a lease of 2 s goes")
    if took < 1.5:
        raise AssertionError(f"a lease of 2 s ended after {took} s")
    kept.revoke()
    equal(client.get(PREFIX + "l")[0], None, "the key of a revoked lease")


def lock(client: etcd3.Etcd3Client) -> None:
    host, port = addresses()[1]
    other = etcd3.client(host=host, port=port, timeout=30)
    first, second = client.lock(PREFIX + "lock", ttl=30), other.lock(PREFIX + "lock", ttl=30)
    equal(first.acquire(), True, "acquire")
    equal(first.is_acquired(), True, "is_acquired")
    equal(second.acquire(timeout=1), False, "acquire of a held lock")
    waiting = threading.Thread(target=second.acquire, kwargs={"timeout": 30})
    waiting.start()
    equal(first.release(), True, "release")
    waiting.join()
    equal(second.is_acquired(), True, "the other holds it")
    equal(first.is_acquired(), False, "the first does not")
    with client.lock(PREFIX + "another") as third:
        equal(third.is_acquired(), True, "as a context manager")
    equal(second.release(), True, "release")
    other.close()


def main() -> None:
    host, port = addresses()[0]
    client = etcd3.client(host=host, port=port, timeout=30)
    for check in (kv, transaction, watch, lease, lock):
        check(client)
        print("ok", check.__name__, flush=True)
    client.close()


if __name__ == "__main__":
    main()
