"""Operations and conditions of transactions.

::

    await client.when(key("/job").absent, key("/limit").value == "3").then(put("/job", "me"))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from muster_client import ranges
from muster_client.model import TxnResult
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import Keys, Text

Sort = Literal["key", "version", "create", "mod", "value"]
_TARGETS: dict[str, pb.RangeRequest.SortTarget] = {
    "key": pb.RangeRequest.KEY, "version": pb.RangeRequest.VERSION, "create": pb.RangeRequest.CREATE,
    "mod": pb.RangeRequest.MOD, "value": pb.RangeRequest.VALUE,
}


class HasId(Protocol):
    """A lease."""

    @property
    def id(self) -> int: ...


def id_of(lease: int | HasId | None) -> int | None:
    return lease if lease is None or isinstance(lease, int) else lease.id


@dataclass(frozen=True, slots=True)
class Op:
    """One operation, in etcd's form; made by :func:`get`, :func:`put`, :func:`delete`."""

    request: pb.RequestOp
    reads_only: bool = False


def get(
    keys: Keys, *, limit: int = 0, revision: int = 0, sort: Sort = "key", descending: bool = False,
    keys_only: bool = False, max_create: int = 0,
) -> Op:
    """Read keys. ``limit`` 0: all; ``revision`` 0: the latest; ``max_create``: those created up to that
    revision."""
    where = ranges.of(keys)
    order = pb.RangeRequest.DESCEND if descending else pb.RangeRequest.ASCEND
    if sort == "key" and not descending:
        order = pb.RangeRequest.NONE
    return Op(pb.RequestOp(request_range=pb.RangeRequest(
        key=where.start, range_end=where.end, limit=limit, revision=revision, sort_order=order,
        sort_target=_TARGETS[sort], keys_only=keys_only, max_create_revision=max_create)), reads_only=True)


def put(key: Text, value: Text | None, *, lease: int | HasId | None = 0, previous: bool = False) -> Op:
    """Write a key. ``value`` None keeps the value, ``lease`` None the lease: the key must exist then.
    ``previous``: give back the key as it was."""
    return Op(pb.RequestOp(request_put=pb.PutRequest(
        key=ranges.of(key).start, value=b"" if value is None else ranges.data(value), lease=id_of(lease) or 0,
        prev_kv=previous, ignore_value=value is None, ignore_lease=lease is None)))


def delete(keys: Keys, *, previous: bool = False) -> Op:
    """Delete keys; none need be there."""
    where = ranges.of(keys)
    return Op(pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(
        key=where.start, range_end=where.end, prev_kv=previous)))


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a key, or of each key of a range (one without keys holds)."""

    compare: pb.Compare


class Property:
    """Something of a key that is compared: ``==``, ``!=``, ``<``, ``>``."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, keys: ranges.KeyRange, target: pb.Compare.CompareTarget, field: str) -> None:
        self._keys, self._target, self._field = keys, target, field

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._is(pb.Compare.EQUAL, other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._is(pb.Compare.NOT_EQUAL, other)

    def __lt__(self, other: Text | int) -> Condition:
        return self._is(pb.Compare.LESS, other)

    def __gt__(self, other: Text | int) -> Condition:
        return self._is(pb.Compare.GREATER, other)

    def _is(self, result: pb.Compare.CompareResult, other: Any) -> Condition:
        if self._field == "value":
            if not isinstance(other, bytes | str):
                raise TypeError(f"a value is compared with bytes or str, not {other!r}")
            other = ranges.data(other)
        elif not isinstance(other, int):
            raise TypeError(f"{self._field} is compared with an int, not {other!r}")
        compare = pb.Compare(
            key=self._keys.start, range_end=self._keys.end, target=self._target, result=result)
        setattr(compare, self._field, other)
        return Condition(compare)


class key:
    """A key, or a range, in a condition: ``key("/a").value == "1"``, ``key("/a").absent``."""

    def __init__(self, keys: Keys) -> None:
        where = ranges.of(keys)
        self.value = Property(where, pb.Compare.VALUE, "value")
        self.version = Property(where, pb.Compare.VERSION, "version")
        self.create_revision = Property(where, pb.Compare.CREATE, "create_revision")
        self.mod_revision = Property(where, pb.Compare.MOD, "mod_revision")
        self.lease = Property(where, pb.Compare.LEASE, "lease")

    @property
    def absent(self) -> Condition:
        """It does not exist."""
        return self.create_revision == 0

    @property
    def present(self) -> Condition:
        """It exists."""
        return self.create_revision > 0


@dataclass(frozen=True, slots=True)
class Txn(Awaitable[TxnResult]):
    """A transaction in one step: ``await`` it, or nest it in another. It can be used again."""

    conditions: tuple[Condition, ...]
    success: tuple[Op, ...] = ()
    failure: tuple[Op, ...] = ()
    run: Callable[[Txn], Awaitable[TxnResult]] | None = None

    def then(self, *ops: Op | Txn) -> Txn:
        """What is done if all conditions hold."""
        return replace(self, success=(*self.success, *map(_op_of, ops)))

    def otherwise(self, *ops: Op | Txn) -> Txn:
        """What is done if one does not hold."""
        return replace(self, failure=(*self.failure, *map(_op_of, ops)))

    @property
    def request(self) -> pb.TxnRequest:
        """etcd's form."""
        return pb.TxnRequest(
            compare=[one.compare for one in self.conditions],
            success=[op.request for op in self.success], failure=[op.request for op in self.failure])

    @property
    def reads_only(self) -> bool:
        return all(op.reads_only for op in (*self.success, *self.failure))

    async def commit(self) -> TxnResult:
        """Run it; ``await`` of itself does the same."""
        return await self

    def __await__(self) -> Generator[Any, Any, TxnResult]:
        if self.run is None:
            raise TypeError("a transaction is awaited if a client made it")
        return self.run(self).__await__()


def when(*conditions: Condition) -> Txn:
    """A transaction to nest in another one."""
    return Txn(conditions)


def _op_of(op: Op | Txn) -> Op:
    return op if isinstance(op, Op) else Op(pb.RequestOp(request_txn=op.request), op.reads_only)
