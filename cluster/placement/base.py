"""Where a key lives: its directory's first segments, hashed: the first eight bytes (big-endian) of BLAKE2b,
modulo the shard count. Shard count and depth are agreed once, in the order log's first record."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

DEFAULT_DEPTH = 2
_CACHE_LIMIT = 65_536
_CACHED_BYTES = 256  # of a prefix: any client may name longer ones, without end


@dataclass(slots=True)
class Base:
    """The rule. ``depth``: how many segments of a key's directory count."""

    shards: int
    depth: int = DEFAULT_DEPTH
    cache: dict[bytes, int] = field(default_factory=dict, repr=False, compare=False)

    def prefix_of(self, key: bytes) -> bytes:
        """The part of ``key`` that decides its shard: its directory (up to and with its last ``/``), cut
        after ``depth`` segments; a key without a directory counts whole."""
        end = key.rfind(b"/") + 1
        if end == 0:
            return key
        pos = 1 if key[:1] == b"/" else 0
        for _ in range(self.depth):
            slash = key.find(b"/", pos, end)
            if slash < 0:
                return key[:end]
            pos = slash + 1
        return key[:pos]

    def shard_of(self, key: bytes) -> int:
        if self.shards == 1:
            return 0
        prefix = self.prefix_of(key)
        shard = self.cache.get(prefix)
        return self.hashed(prefix) if shard is None else shard

    def hashed(self, prefix: bytes) -> int:
        shard = int.from_bytes(blake2b(prefix, digest_size=8).digest(), "big") % self.shards
        if len(prefix) <= _CACHED_BYTES:
            if len(self.cache) >= _CACHE_LIMIT:
                self.cache.clear()
            self.cache[prefix] = shard
        return shard

    def shards_of(self, key: bytes, range_end: bytes) -> tuple[int, ...]:
        """The shards that the range ``[key, range_end)`` can touch, ascending.

        ``range_end`` as in etcd's API: empty = the one key, a zero byte = to the end of the key space.
        """
        if self.shards == 1:
            return (0,)
        if not range_end:
            return (self.shard_of(key),)
        prefix = self._common_prefix(key, range_end)
        if prefix is None:
            return tuple(range(self.shards))
        return (self.shard_of(prefix),)

    def _common_prefix(self, key: bytes, range_end: bytes) -> bytes | None:
        """A placement prefix of full depth that every key of the range begins with, or None."""
        at = 1 if key[:1] == b"/" else 0
        for _ in range(self.depth):
            slash = key.find(b"/", at)
            if slash < 0:
                return None
            at = slash + 1
        prefix = key[:at]
        # every k with key <= k < range_end begins with prefix iff range_end <= the prefix's successor
        return prefix if range_end != b"\0" and range_end <= prefix[:-1] + b"0" else None
