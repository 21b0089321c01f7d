"""etcd's KV and Lease semantics in the plainest words: a dictionary per revision, message objects, no wire
form.

Written from the contract alone and independent of ``cluster``: what it is compared with shares no code with
it.
"""

from __future__ import annotations

from typing import Any

from cluster.pb import kv_pb2
from cluster.pb import rpc_pb2 as pb

State = dict[bytes, Any]  # key -> KeyValue


class Refused(Exception):
    """A request that etcd refuses, by the name of the condition."""


def inside(key: bytes, start: bytes, end: bytes) -> bool:
    if end == b"":
        return key == start
    return key >= start and (end == b"\0" or key < end)


class Model:
    def __init__(self) -> None:
        self.states: dict[int, State] = {1: {}}
        self.revision = 1
        self.compacted = -1
        self.leases: dict[int, int] = {}

    @property
    def now(self) -> State:
        return self.states[self.revision]

    def call(self, rpc: str, request: Any) -> Any:
        """The response with its header's revision; Refused."""
        response = getattr(self, rpc)(request)
        response.header.revision = self.revision
        return response

    def _commit(self, state: State) -> None:
        self.revision += 1
        self.states[self.revision] = state

    # --- KV ---

    def Range(self, r: Any) -> Any:
        self._check_range(r)
        revision = r.revision if r.revision > 0 else self.revision
        if revision > self.revision:
            raise Refused("FutureRev")
        if revision < self.compacted:
            raise Refused("Compacted")
        return self._range(r, self.states[revision])

    def _range(self, r: Any, state: State) -> Any:
        rows = [state[key] for key in sorted(state) if inside(key, r.key, r.range_end)]
        response = pb.RangeResponse(count=len(rows))
        if r.count_only:
            return response
        filters = {"max_mod_revision": r.max_mod_revision, "min_mod_revision": r.min_mod_revision,
                   "max_create_revision": r.max_create_revision, "min_create_revision": r.min_create_revision}
        if r.sort_order == 0 and r.sort_target != 0 and r.limit > 0 and not any(filters.values()):
            rows = rows[: r.limit + 1]
        if r.max_mod_revision:
            rows = [kv for kv in rows if kv.mod_revision <= r.max_mod_revision]
        if r.min_mod_revision:
            rows = [kv for kv in rows if kv.mod_revision >= r.min_mod_revision]
        if r.max_create_revision:
            rows = [kv for kv in rows if kv.create_revision <= r.max_create_revision]
        if r.min_create_revision:
            rows = [kv for kv in rows if kv.create_revision >= r.min_create_revision]
        rank = ["key", "version", "create_revision", "mod_revision", "value"][r.sort_target]
        rows = sorted(rows, key=lambda kv: getattr(kv, rank), reverse=r.sort_order == 2)
        if 0 < r.limit < len(rows):
            rows = rows[: r.limit]
            response.more = True
        for kv in rows:
            copy = response.kvs.add()
            copy.CopyFrom(kv)
            if r.keys_only:
                copy.value = b""
        return response

    def Put(self, r: Any) -> Any:
        self._check_put(r)
        if r.lease and r.lease not in self.leases:
            raise Refused("LeaseNotFound")
        state = dict(self.now)
        response = self._put(r, state, self.revision + 1)
        self._commit(state)
        return response

    def _put(self, r: Any, state: State, revision: int) -> Any:
        old = state.get(r.key)
        if old is None and (r.ignore_value or r.ignore_lease):
            raise Refused("KeyNotFound")
        response = pb.PutResponse(prev_kv=old if r.prev_kv else None)
        state[r.key] = kv_pb2.KeyValue(
            key=r.key, create_revision=old.create_revision if old else revision, mod_revision=revision,
            version=old.version + 1 if old else 1, value=old.value if r.ignore_value else r.value,
            lease=old.lease if r.ignore_lease else r.lease)
        return response

    def DeleteRange(self, r: Any) -> Any:
        if not r.key:
            raise Refused("EmptyKey")
        state = dict(self.now)
        response = self._delete(r, state)
        if response.deleted:
            self._commit(state)
        return response

    def _delete(self, r: Any, state: State) -> Any:
        keys = sorted(key for key in state if inside(key, r.key, r.range_end))
        gone = [state.pop(key) for key in keys]
        return pb.DeleteRangeResponse(deleted=len(gone), prev_kvs=gone if r.prev_kv else [])

    def Compact(self, r: Any) -> Any:
        if r.revision <= self.compacted:
            raise Refused("Compacted")
        if r.revision > self.revision:
            raise Refused("FutureRev")
        self.compacted = r.revision or self.compacted  # 0 is "never" to muster
        return pb.CompactionResponse()

    # --- Txn ---

    def Txn(self, r: Any) -> Any:
        self._check_txn(r, 128)
        self._check_duplicates(r.success)
        self._check_duplicates(r.failure)
        before = self.now
        taken = list(self._taken(r, before))
        for op in taken:
            if op.HasField("request_put"):
                put = op.request_put
                if (put.ignore_value or put.ignore_lease) and put.key not in before:
                    raise Refused("KeyNotFound")
                if put.lease and put.lease not in self.leases:
                    raise Refused("LeaseNotFound")
        for op in taken:
            if op.HasField("request_range") and op.request_range.revision:
                if op.request_range.revision > self.revision:
                    raise Refused("FutureRev")
                if op.request_range.revision < self.compacted:
                    raise Refused("Compacted")
        state = dict(before)
        self.changed = False
        response = self._run(r, before, state)
        if self.changed:
            self._commit(state)
        return response

    def _taken(self, r: Any, state: State) -> Any:
        for op in r.success if all(self._holds(c, state) for c in r.compare) else r.failure:
            if op.HasField("request_txn"):
                yield from self._taken(op.request_txn, state)
            else:
                yield op

    def _holds(self, c: Any, state: State) -> bool:
        def one(kv: Any) -> bool:
            if c.target > 4:
                stored: Any = 0
                given: Any = 0
            else:
                name = ["version", "create_revision", "mod_revision", "value", "lease"][c.target]
                stored, given = getattr(kv, name), getattr(c, name)
            return [stored == given, stored > given, stored < given, stored != given, True][min(c.result, 4)]

        rows = [kv for key, kv in state.items() if inside(key, c.key, c.range_end)]
        if not rows:
            return c.target != 3 and one(kv_pb2.KeyValue())
        return all(one(kv) for kv in rows)

    def _run(self, r: Any, before: State, state: State) -> Any:
        response = pb.TxnResponse(succeeded=all(self._holds(c, before) for c in r.compare))
        for op in r.success if response.succeeded else r.failure:
            answer = response.responses.add()
            if op.HasField("request_txn"):
                answer.response_txn.CopyFrom(self._run(op.request_txn, before, state))
                answer.response_txn.header.SetInParent()
                continue
            if op.HasField("request_put"):
                inner = self._put(op.request_put, state, self.revision + 1)
                answer.response_put.CopyFrom(inner)
                self.changed = True
                header = answer.response_put.header
            elif op.HasField("request_delete_range"):
                inner = self._delete(op.request_delete_range, state)
                answer.response_delete_range.CopyFrom(inner)
                self.changed |= inner.deleted > 0
                header = answer.response_delete_range.header
            else:
                revision = op.request_range.revision
                answer.response_range.CopyFrom(
                    self._range(op.request_range, self.states[revision] if revision > 0 else state))
                header = answer.response_range.header
            header.revision = self.revision + self.changed
        return response

    # --- static checks ---

    def _check_put(self, r: Any) -> None:
        if not r.key:
            raise Refused("EmptyKey")
        if r.ignore_value and r.value:
            raise Refused("ValueProvided")
        if r.ignore_lease and r.lease:
            raise Refused("LeaseProvided")

    def _check_range(self, r: Any) -> None:
        if not r.key:
            raise Refused("EmptyKey")
        if r.sort_order not in (0, 1, 2) or r.sort_target not in (0, 1, 2, 3, 4):
            raise Refused("InvalidSortOption")

    def _check_txn(self, r: Any, budget: int) -> None:
        most = max(len(r.compare), len(r.success), len(r.failure))
        if most > budget:
            raise Refused("TooManyOps")
        if any(not c.key for c in r.compare):
            raise Refused("EmptyKey")
        for op in [*r.success, *r.failure]:
            match op.WhichOneof("request"):
                case "request_put":
                    self._check_put(op.request_put)
                case "request_range":
                    self._check_range(op.request_range)
                case "request_delete_range":
                    if not op.request_delete_range.key:
                        raise Refused("EmptyKey")
                case "request_txn":
                    self._check_txn(op.request_txn, budget - most)
                case _:
                    raise Refused("KeyNotFound")

    def _check_duplicates(self, ops: Any) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """The contract's table; a delete to the end of the keys covers nothing (as etcd's check has it)."""

        def covered(key: bytes) -> bool:
            return any((start == key) if not end else start <= key < end for start, end in deletes)

        deletes = [(op.request_delete_range.key, op.request_delete_range.range_end)
                   for op in ops if op.HasField("request_delete_range")]
        puts: list[bytes] = []
        for op in ops:
            if op.HasField("request_txn"):
                then_puts, then_deletes = self._check_duplicates(op.request_txn.success)
                else_puts, else_deletes = self._check_duplicates(op.request_txn.failure)
                both = sorted({*then_puts, *else_puts})
                if any(key in puts or covered(key) for key in both):
                    raise Refused("DuplicateKey")
                puts += both
                deletes += then_deletes + else_deletes
        for op in ops:
            if op.HasField("request_put"):
                if op.request_put.key in puts or covered(op.request_put.key):
                    raise Refused("DuplicateKey")
                puts.append(op.request_put.key)
        return puts, deletes

    # --- Lease ---

    def LeaseGrant(self, r: Any) -> Any:
        if r.TTL > 9_000_000_000:
            raise Refused("LeaseTTLTooLarge")
        if r.ID in self.leases:
            raise Refused("LeaseExist")
        self.leases[r.ID] = max(r.TTL, 2)
        return pb.LeaseGrantResponse(ID=r.ID, TTL=self.leases[r.ID])

    def LeaseRevoke(self, r: Any) -> Any:
        if r.ID not in self.leases:
            raise Refused("LeaseNotFound")
        del self.leases[r.ID]
        state = {key: kv for key, kv in self.now.items() if kv.lease != r.ID}
        if len(state) != len(self.now):
            self._commit(state)
        return pb.LeaseRevokeResponse()
