"""Ranges by pages, transactions, watches and mirrors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, Self, TypeVar

from muster_client import ops
from muster_client.kv import Pages as _Pages
from muster_client.mirror import Mirror as _Mirror
from muster_client.model import KeyValue, TxnResult
from muster_client.ranges import Text
from muster_client.sync.base import Within, asked, wait
from muster_client.watch import Event
from muster_client.watch import Watch as _Watch
from muster_client.wire.following import Followed as _Followed

Told = TypeVar("Told")


class Pages(Iterator[KeyValue]):
    """See :class:`muster_client.Pages`."""

    def __init__(self, inner: _Pages) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    @property
    def count(self) -> int:
        return self._inner.count

    def __next__(self) -> KeyValue:
        kv = self._inner.waiting() or asked(self._inner.next())
        if kv is None:
            raise StopIteration
        return kv

    def all(self) -> list[KeyValue]:
        """What is left, in memory at once."""
        return asked(self._inner.all())


class Txn:
    """See :class:`muster_client.Txn`; :meth:`commit` runs it."""

    def __init__(self, inner: ops.Txn) -> None:
        self._inner = inner

    def then(self, *done: ops.Op | ops.Txn) -> Txn:
        """What is done if all conditions hold."""
        return Txn(self._inner.then(*done))

    def otherwise(self, *done: ops.Op | ops.Txn) -> Txn:
        """What is done if one does not hold."""
        return Txn(self._inner.otherwise(*done))

    def commit(self) -> TxnResult:
        """Run it."""
        return asked(self._inner.commit())


class Followed(Within, Iterator[Told], Generic[Told]):
    """What a watch tells."""

    def __init__(self, inner: _Followed[Told]) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    @property
    def endpoint(self) -> str:
        return self._inner.endpoint

    @property
    def serves(self) -> bool:
        return self._inner.serves

    def __enter__(self) -> Self:
        wait(self._inner.__aenter__())
        return self

    def __next__(self) -> Told:
        if (event := self._next(None)) is None:
            raise StopIteration
        return event

    def read(self, timeout: float) -> Told | None:
        """The next one; None: it is closed. TimeoutError, which loses nothing."""
        return self._next(timeout)

    def _next(self, timeout: float | None) -> Told | None:
        event = next(self._inner.waiting(), None)
        if event is None:
            wait(self._inner.ready(), timeout)  # an interrupt loses nothing: it takes none
            event = next(self._inner.waiting(), None)
        return event

    def request_progress(self) -> None:
        wait(self._inner.request_progress())

    def close(self) -> None:
        wait(self._inner.close())


class Watch(Followed[Event]):
    """See :class:`muster_client.Watch`."""

    def __init__(self, inner: _Watch) -> None:
        super().__init__(inner)


class Mirror(Within, Mapping[bytes, KeyValue]):
    """See :class:`muster_client.Mirror`."""

    def __init__(self, inner: _Mirror) -> None:
        self._inner = inner

    @property
    def revision(self) -> int:
        return self._inner.revision

    def __enter__(self) -> Self:
        wait(self._inner.__aenter__())
        return self

    def close(self) -> None:
        wait(self._inner.__aexit__(None, None, None))

    def __getitem__(self, key: Text) -> KeyValue:
        return self._inner[key]

    def __contains__(self, key: object) -> bool:
        return key in self._inner

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    def copy(self) -> dict[bytes, KeyValue]:
        return self._inner.copy()

    def wait_for(self, revision: int, timeout: float | None = None) -> None:
        """See :meth:`muster_client.Mirror.wait_for`."""
        wait(self._inner.wait_for(revision), timeout)
