"""The versions and values of keys that are written or read often."""

from __future__ import annotations

from cluster.evaluate.view import Current

_ROW_OVERHEAD = 180  # of two bytes objects and a place in a dict
_LARGEST_VALUE = 4096


class VersionCache:
    """The answers of :meth:`StateStore.current`: two generations of a dict, the older dropped whole; None:
    the key is not there. Apply changes only keys that are in it, and needs no read.

    ``values`` are the newest KeyValues of keys that are read: 0.1 us instead of 1.7. A change forgets the
    key; all are forgotten once ``value_limit`` bytes have been remembered.
    """

    __slots__ = ("cold", "hot", "limit", "suspended", "value_limit", "value_room", "values")

    def __init__(self, limit: int = 32_768, value_limit: int = 8 << 20) -> None:
        self.limit = limit
        self.hot: dict[bytes, Current | None] = {}
        self.cold: dict[bytes, Current | None] = {}
        self.suspended = False
        self.values: dict[bytes, bytes] = {}
        self.value_limit = self.value_room = value_limit

    def keep(self, key: bytes, kv: bytes) -> None:
        size = len(kv) + len(key) + _ROW_OVERHEAD
        if size > _LARGEST_VALUE or self.suspended:
            return
        self.value_room -= size
        if self.value_room < 0:
            self.values.clear()
            self.value_room = self.value_limit - size
        self.values[key] = kv

    def renew(self, key: bytes, kv: bytes) -> None:
        """A key that is in ``values`` was put: what is read often is read again."""
        if len(kv) <= len(self.values[key]):
            self.values[key] = kv
        else:  # there was room for the old one
            del self.values[key]

    def put(self, key: bytes, is_new: bool, revision: int, lease: int) -> None:
        for generation in (self.hot, self.cold):
            if key in generation:
                old = generation[key]
                if is_new:
                    assert old is None, "I22: put of a new key that exists"
                    generation[key] = Current(revision, revision, 1, lease)
                else:
                    assert old is not None, "I22: put of an existing key that is not there"
                    generation[key] = Current(old.create, revision, old.version + 1, lease)
                return

    def delete(self, key: bytes) -> None:
        for generation in (self.hot, self.cold):
            if key in generation:
                generation[key] = None
                return

    def add(self, key: bytes, current: Current | None) -> None:
        if len(key) > 512 or self.suspended:
            return
        if len(self.hot) >= self.limit:
            self.cold.clear()
            # swapped in place: apply holds both dicts
            self.hot, self.cold = self.cold, self.hot
        self.hot[key] = current

    def forget_versions(self) -> None:
        """The values stay."""
        self.hot.clear()
        self.cold.clear()

    def forget_all(self) -> None:
        self.forget_versions()
        self.values.clear()
        self.value_room = self.value_limit

    def clear(self) -> None:
        self.forget_all()
        self.suspended = False

    def suspend(self) -> None:
        """Forget everything and remember nothing until :meth:`resume`."""
        self.clear()
        self.suspended = True

    def resume(self) -> None:
        self.suspended = False
