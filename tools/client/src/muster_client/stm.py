"""Software transactional memory: a function reads and writes keys, and its writes are done at once if what it
has read still holds; else it runs again. The four levels are those of clientv3's ``concurrency.NewSTM``.

|level|reads see|it runs again where|
|---|---|---|
|``serializable_snapshot``|one revision|a key that it read or wrote has changed|
|``serializable``|one revision|a key that it read has changed|
|``repeatable_reads``|a key always as it was first|a key that it read has changed|
|``read_committed``|a key always as it was first|never|
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from muster_client import ops, ranges
from muster_client.model import Found, KeyValue
from muster_client.ranges import Text

if TYPE_CHECKING:
    from muster_client.client import Client

Isolation = Literal["serializable_snapshot", "serializable", "repeatable_reads", "read_committed"]
Result = TypeVar("Result")
_SNAPSHOTS = ("serializable_snapshot", "serializable")


class Stm:
    """What the function reads and writes with, in one attempt. Reads see the function's own writes."""

    def __init__(self, client: Client, isolation: Isolation, timeout: float | None) -> None:
        self._client, self._isolation, self._timeout = client, isolation, timeout
        self._read: dict[bytes, Found] = {}
        self._fetched: dict[bytes, Found] = {}  # with the answer that refused the attempt before
        self._written: dict[bytes, ops.Op] = {}
        self._values: dict[bytes, bytes | None] = {}
        self.revision = 0

    async def get(self, key: Text) -> bytes | None:
        """A key's value, or None."""
        name = ranges.of(key).start
        if name in self._written:
            return self._values[name]
        kv = await self._kv(name)
        return None if kv is None else kv.value

    async def text(self, key: Text) -> str | None:
        """The same, from UTF-8."""
        value = await self.get(key)
        return None if value is None else value.decode()

    async def mod_revision(self, key: Text) -> int:
        """The revision of a key as it is in the store; 0: there is none."""
        kv = await self._kv(ranges.of(key).start)
        return 0 if kv is None else kv.mod_revision

    async def fetch(self, keys: Iterable[Text]) -> None:
        """Read keys in one call, for later :meth:`get`."""
        await self._fetch([ranges.of(key).start for key in keys])

    def put(self, key: Text, value: Text, *, lease: int | ops.HasId = 0) -> None:
        """Write a key, once the function has ended."""
        name = ranges.of(key).start
        self._written[name] = ops.put(key, value, lease=lease)
        self._values[name] = ranges.data(value)

    def delete(self, key: Text) -> None:
        """Delete a key, once the function has ended."""
        name = ranges.of(key).start
        self._written[name] = ops.delete(key)
        self._values[name] = None

    async def _kv(self, name: bytes) -> KeyValue | None:
        await self._fetch([name])
        return self._read[name].kv

    async def _fetch(self, names: list[bytes]) -> None:
        for name in names:
            if name not in self._read and (found := self._fetched.pop(name, None)) is not None:
                self._read[name] = found
        missing = [name for name in dict.fromkeys(names) if name not in self._read]
        if not missing:
            return
        revision = 0
        known = (*self._read.values(), *self._fetched.values())  # this attempt's, and what it may yet read
        if self._isolation in _SNAPSHOTS and known:
            revision = min(found.revision for found in known)
        result = await self._client.txn(
            ops.when().then(*(ops.get(name, revision=revision) for name in missing)), timeout=self._timeout)
        for place, name in enumerate(missing):
            found = result.found(place)
            self._read[name] = Found(found.kvs, found.count, revision or result.revision)

    def _conditions(self) -> list[ops.Condition]:
        if self._isolation == "read_committed":
            return []
        found = [ops.key(name).mod_revision == (read.kv.mod_revision if read.kv is not None else 0)
                 for name, read in self._read.items()]
        if self._isolation == "serializable_snapshot" and self._read:
            first = min(read.revision for read in self._read.values())
            found += [ops.key(name).mod_revision < first + 1 for name in self._written]
        return found

    async def _commit(self) -> bool:
        """Do the writes, if what was read still holds; else start again."""
        known = list(self._read)
        snapshots = self._isolation in _SNAPSHOTS
        result = await self._client.txn(
            ops.when(*self._conditions()).then(*self._written.values())
            .otherwise(*(ops.get(name) for name in known if snapshots)), timeout=self._timeout)
        self.revision = result.revision
        if result:
            return True
        self._read, self._written, self._values = {}, {}, {}
        self._fetched = {}
        if snapshots:
            self._fetched = {
                name: Found(found.kvs, found.count, result.revision)
                for place, name in enumerate(known) for found in [result.found(place)]}
        return False


class Committed(Generic[Result]):
    """``value``: what the function gave; ``revision``: of its writes, else of the store; ``attempts``: how
    often it ran."""

    def __init__(self, value: Result, revision: int, attempts: int) -> None:
        self.value, self.revision, self.attempts = value, revision, attempts


async def run(
    client: Client, function: Callable[[Stm], Awaitable[Result]], isolation: Isolation,
    prefetch: Iterable[Text], timeout: float | None,
) -> Committed[Result]:
    """Run a function until its attempt is committed."""
    stm, keys, attempts = begun(client, isolation, timeout), tuple(prefetch), 0
    while True:
        attempts += 1
        if keys:
            await stm.fetch(keys)
        value = await function(stm)
        if await committed(stm):
            return Committed(value, stm.revision, attempts)


def begun(client: Client, isolation: Isolation, timeout: float | None) -> Stm:
    """ValueError for a level that there is not."""
    if isolation not in (*_SNAPSHOTS, "repeatable_reads", "read_committed"):
        raise ValueError(f"no isolation level is called {isolation!r}")
    return Stm(client, isolation, timeout)


async def committed(stm: Stm) -> bool:
    """End an attempt; false: it runs again."""
    return await stm._commit()
