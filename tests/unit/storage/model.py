"""A naive multi-version store: the oracle for node.storage. It keeps everything and computes nothing
cleverly."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.effects import records
from cluster.wire import protobuf as wire


@dataclass
class Version:
    revision: int
    sub: int
    create: int
    version: int  # 0: a tombstone
    value: bytes = b""
    lease: int = 0

    def kv(self, key: bytes) -> bytes:
        if not self.version:
            return wire.tombstone(key, self.revision)
        return wire.key_value(key, self.create, self.revision, self.version, self.value, self.lease)


def in_range(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    return start <= key and (end == b"\0" or key < end)


@dataclass
class Model:
    """Applies requests and, as a leader does, says which items they become."""

    revision: int = 1
    compact_revision: int = 0
    versions: dict[bytes, list[Version]] = field(default_factory=dict)
    leases: dict[int, tuple[int, int]] = field(default_factory=dict)
    log: list[tuple[int, int, bytes, Version]] = field(default_factory=list)  # revision, kind, key, version

    def at(self, key: bytes, revision: int) -> Version | None:
        """The live version of a key at a revision."""
        found = self.newest(key, revision)
        return found if found is not None and found.version else None

    def newest(self, key: bytes, revision: int) -> Version | None:
        """The last change of a key up to a revision, tombstones too."""
        found = None
        for version in self.versions.get(key, ()):
            if version.revision <= revision:
                found = version
        return found

    def _put(self, key: bytes, value: bytes, lease: int, revision: int, sub: int) -> bytes:
        old = self.versions.get(key, [None])[-1]
        if old is not None and old.version:
            new = Version(revision, sub, old.create, old.version + 1, value, lease)
            # a pending creation of the same transaction is still "mine"
            item = records.put(key, old.create if old.create != revision else 0, new.version, value, lease)
        else:
            new = Version(revision, sub, revision, 1, value, lease)
            item = records.put(key, 0, 1, value, lease)
        self.versions.setdefault(key, []).append(new)
        self.log.append((revision, 0, key, new))
        return item

    def _delete(self, key: bytes, revision: int, sub: int) -> bytes:
        new = Version(revision, sub, 0, 0)
        self.versions[key].append(new)
        self.log.append((revision, 1, key, new))
        return records.delete(key)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> bytes:
        self.revision += 1
        return self._put(key, value, lease if lease in self.leases else 0, self.revision, 0)

    def delete(self, key: bytes) -> bytes:
        if self.at(key, self.revision) is None:
            return b""
        self.revision += 1
        return self._delete(key, self.revision, 0)

    def txn(self, operations: list[tuple[str, bytes, bytes, int]]) -> bytes:
        """Puts and deletes at one revision, no key put twice: that is refused (``duplicate key given``).

        A key may be deleted before its put and after it: by a nested transaction, or a delete up to the end.
        """
        items: list[bytes] = []
        revision = self.revision + 1
        put_keys: set[bytes] = set()
        for name, key, value, lease in operations:
            if name == "put" and key not in put_keys:
                put_keys.add(key)
                items.append(
                    self._put(key, value, lease if lease in self.leases else 0, revision, len(items))
                )
            elif name == "delete":
                newest = self.versions.get(key, [None])[-1]
                if newest is not None and newest.version:
                    items.append(self._delete(key, revision, len(items)))
        if items:
            self.revision = revision
        return records.txn(items)

    def grant(self, lease: int, ttl: int) -> bytes:
        if lease in self.leases:
            return b""
        self.leases[lease] = (ttl, 0)
        return records.lease_grant(lease, ttl)

    def checkpoint(self, lease: int, remaining: int) -> bytes:
        if lease not in self.leases:
            return b""
        self.leases[lease] = (self.leases[lease][0], remaining)
        return records.lease_checkpoint(lease, remaining)

    def revoke(self, lease: int) -> bytes:
        if lease not in self.leases:
            return b""
        attached = self.lease_keys(lease)
        del self.leases[lease]
        if attached:
            self.revision += 1
            for sub, key in enumerate(attached):
                self._delete(key, self.revision, sub)
        return records.lease_revoke(lease, attached)

    def compact(self, revision: int) -> bytes:
        if not self.compact_revision < revision <= self.revision:
            return b""
        self.compact_revision = revision
        return records.compact(revision)

    def lease_keys(self, lease: int) -> list[bytes]:
        return sorted(
            key for key in self.versions
            if (version := self.at(key, self.revision)) is not None and version.lease == lease
        )  # fmt: skip

    def scan(self, start: bytes, end: bytes, revision: int) -> list[tuple[bytes, bytes]]:
        out = []
        for key in sorted(self.versions):
            version = self.at(key, revision)
            if version is not None and in_range(key, start, end):
                out.append((key, version.kv(key)))
        return out

    def history(
        self, start: bytes, end: bytes, from_revision: int
    ) -> list[tuple[int, int, bytes, bytes, bytes, int]]:
        out = []
        last = sub = 0
        for revision, kind, key, version in self.log:
            sub, last = (sub + 1 if revision == last else 0), revision
            if revision == self.compact_revision and version is not self.newest(key, revision):
                continue  # the compaction keeps the last change alone
            if revision >= from_revision and in_range(key, start, end):
                # as in etcd, a creation has none: not even behind a delete of the same transaction
                shows_old = version.create != revision and revision - 1 >= self.compact_revision
                old = self.at(key, revision - 1) if shows_old else None
                out.append((revision, kind, key, version.kv(key), old.kv(key) if old else b"", sub))
        return out
