"""What calls give back."""

from __future__ import annotations

from dataclasses import dataclass

from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as of some revision. ``version`` counts the puts since it was created; ``lease`` 0: none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0

    @property
    def text(self) -> str:
        """The value, from UTF-8."""
        return self.value.decode()

    @property
    def name(self) -> str:
        """The key, from UTF-8."""
        return self.key.decode()


def kv_of(kv: kv_pb2.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


@dataclass(frozen=True, slots=True)
class Done:
    """Of a put or delete. ``deleted`` counts keys; ``previous``: as they were before, if asked for."""

    revision: int
    deleted: int = 0
    previous: tuple[KeyValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Of a get in a transaction. ``count``: of all keys of the range, whatever the limit."""

    kvs: tuple[KeyValue, ...]
    count: int
    revision: int

    @property
    def kv(self) -> KeyValue | None:
        """The first; of one key, the only one."""
        return self.kvs[0] if self.kvs else None


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Of a transaction, and true if its condition held. ``results``: one for each operation of the branch
    that was taken. ``revision``: of its writes, else of the store."""

    succeeded: bool
    revision: int
    results: tuple[Done | Found | TxnResult, ...]

    def __bool__(self) -> bool:
        return self.succeeded

    def found(self, place: int = 0) -> Found:
        """The result there, of a get. TypeError if it is another's."""
        result = self.results[place]
        if not isinstance(result, Found):
            raise TypeError(f"operation {place} is no get")
        return result


def found_of(answer: pb.RangeResponse) -> Found:
    return Found(tuple(map(kv_of, answer.kvs)), answer.count, answer.header.revision)


def put_of(answer: pb.PutResponse) -> Done:
    previous = (kv_of(answer.prev_kv),) if answer.HasField("prev_kv") else ()
    return Done(answer.header.revision, 0, previous)


def deleted_of(answer: pb.DeleteRangeResponse) -> Done:
    return Done(answer.header.revision, answer.deleted, tuple(map(kv_of, answer.prev_kvs)))


def txn_of(answer: pb.TxnResponse) -> TxnResult:
    return TxnResult(answer.succeeded, answer.header.revision, tuple(map(_result_of, answer.responses)))


def _result_of(op: pb.ResponseOp) -> Done | Found | TxnResult:
    kind = op.WhichOneof("response")
    if kind == "response_range":
        return found_of(op.response_range)
    if kind == "response_put":
        return put_of(op.response_put)
    return txn_of(op.response_txn) if kind == "response_txn" else deleted_of(op.response_delete_range)
