"""The store before a transaction that is done, as its answer shows it: one moment, whose keys are read."""

from __future__ import annotations

from cluster.evaluate.reading.ranges import Fields, without_value
from cluster.evaluate.view import Current, Version

_LARGE_BYTES = 32 << 10  # of a row: to cut the value out takes as long as to copy it


class Before:
    """A :class:`cluster.evaluate.view.View` of such a moment; a subclass gives ``get`` and ``scan``."""

    def get(self, key: bytes) -> bytes | None:
        raise NotImplementedError

    def current(self, key: bytes) -> Current | Version | None:
        kv = self.get(key)
        if kv is None:
            return None
        fields = Fields(without_value(kv) if len(kv) > _LARGE_BYTES else kv)  # which copies the value
        return Current(fields.create, fields.mod, fields.version, fields.lease)

    def count(self, start: bytes, end: bytes) -> int:
        raise NotImplementedError("what is deleted was counted before")

    def lease_exists(self, lease: int) -> bool:
        raise NotImplementedError("puts were checked before")

    def lease_keys(self, lease: int) -> list[bytes]:
        raise NotImplementedError("no lease is revoked")
