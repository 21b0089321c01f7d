"""The copy of one cluster's keys into another, and of their changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from grpc import StatusCode
from muster_client.errors import MusterError
from muster_client.pb import kv_pb2, rpc_pb2

from cluster.errors import FUTURE_REV, LEASE_NOT_FOUND
from tools.musterctl.client import Client, RequestError
from tools.musterctl.command import Exit
from tools.musterctl.commands.data.copied_leases import Leases
from tools.musterctl.commands.data.late import Late
from tools.musterctl.commands.keys.watch import cancel_reason

_PAGE = 512
_TXN_BYTES = 1 << 20
_AGAIN_S = 0.1
_ANEW = "begin again, with an empty store"


def _restored(revision: int) -> Exit:
    return Exit(1, f"the source has no revision {revision}: if it was restored, {_ANEW}")


class Copier:
    """Copies a span of keys. ``rename``: a key's name at the target."""

    def __init__(self, source: Client, target: Client, span: tuple[bytes, bytes], max_ops: int,
                 rename: Callable[[bytes], bytes], leases: Leases | None = None) -> None:
        self._source, self._target = source, target
        self._span = span
        self._max_ops = max(1, max_ops)
        self._rename = rename
        self._leases = leases
        self.late = Late(target)
        self.copied = 0
        self.revision = 0  # of the source, up to which all is copied
        self._cluster = self._told = 0  # its ID, and the highest revision that it has told
        self._broken = False  # a stream of it ended
        self.on_progress: Callable[[], None] = lambda: None

    def base(self, since: int = 0) -> None:
        """Copy all keys, at one revision. ``since``: :meth:`follow` begins with this one, if it is older.
        RequestError, Exit, before it copies: the source has compacted that, or was restored to before it. An
        etcd before 3.5.16 compacted at just this revision lacks what was deleted in it, and its watch does
        not say so."""
        if since > 0:
            self._look_at(max(since - 1, 1))
        for at, page in self._pages():
            self.revision = min(at, since - 1) if since > 0 else at
            self.copied += self._apply(self._puts(page))
            self.on_progress()
        self._mend()

    def _look_at(self, revision: int) -> None:
        """RequestError, Exit: the source has it no more. 0: the present one."""
        self._read(rpc_pb2.RangeRequest(key=self._span[0], revision=revision, keys_only=True))

    def _read(self, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
        """Linearizable. RequestError; Exit: the source is older than what it has told."""
        try:
            answer = self._source.unary("KV/Range", request, rpc_pb2.RangeResponse, None, True)
        except RequestError as error:
            if str(error) != FUTURE_REV.text:
                raise
            raise _restored(request.revision) from None
        self._note(answer.header)
        if answer.header.revision < self._told:
            raise _restored(self._told)
        return answer

    def _note(self, header: rpc_pb2.ResponseHeader) -> None:
        """Exit: it is of another cluster than the answers before."""
        if header.cluster_id not in (0, self._cluster or header.cluster_id):
            raise Exit(1, f"the source is another cluster now: {_ANEW}")
        self._cluster = self._cluster or header.cluster_id
        self._told = max(self._told, header.revision)

    def _pages(self, *, keys_only: bool = False) -> Iterator[tuple[int, Sequence[kv_pb2.KeyValue]]]:
        """All of the span at one revision, which is told with each; ``keys_only``: as they are now."""
        start, end = self._span
        at, more = 0, True
        while more:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=_PAGE,
                                           revision=0 if keys_only else at, keys_only=keys_only)
            page = self._read(request)
            at = at or page.header.revision
            yield at, page.kvs
            more = page.more and len(page.kvs) > 0
            if more:
                start = page.kvs[-1].key + b"\0"

    def follow(self) -> None:
        """Copy changes as they come, revision by revision, until interrupted. RequestError, Exit."""
        key, range_end = self._span
        watch = rpc_pb2.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=self.revision + 1, progress_notify=True)
        told = self._source.raw().watch(watch, on_again=self._again)
        for response in self._source.each(told, meanwhile=lambda: self._meanwhile(told.serves)):
            self._note(response.header)
            if response.canceled:
                raise Exit(1, cancel_reason(response))
            for revision, events in groupby(response.events, lambda event: event.kv.mod_revision):
                # of a key that it deletes and puts the last one counts: no transaction takes both
                last = {event.kv.key: event for event in events}
                self.copied += self._apply((key, self._change(event)) for key, event in last.items())
                self.revision = revision
            if not response.events:  # with some, its revision is the store's: more of the past may follow
                self.revision = max(self.revision, response.header.revision)
            self._mend()
            self.on_progress()

    def _again(self, error: MusterError) -> None:
        self._source.again(error)
        self._broken = True

    def _meanwhile(self, serves: bool) -> None:
        # where the source was restored, the stream waits for the next revision. An answer from before the
        # stream may be one from before the restore, too
        if self._broken and serves:
            self._broken = False
            try:
                self._look_at(0)
            except RequestError:  # whatever ends streams may end this
                self._broken = True
        self._mend()

    @property
    def is_whole(self) -> bool:
        """Whether the target lacks nothing up to the revision."""
        return not self.late.keys and (self._leases is None or not self._leases.ended)

    def settle(self) -> None:
        """Wait for what endpoints may do late, and put it right. RequestError."""
        self.late.wait()
        self._mend()

    def _mend(self) -> None:
        """Copy once more what the target lost with leases, and what old transactions may have changed. Later
        changes follow."""
        leases = self._leases
        while leases is not None and leases.ended:
            done = 1
            try:
                keys = self._within(leases.keys(leases.ended[0]))
            except RequestError as error:
                if error.code is not StatusCode.PERMISSION_DENIED:
                    raise
                # one of its keys is none of this user's, who may read the span
                done, ended = len(leases.ended), set(leases.ended.copy())  # others come meanwhile
                keys = [kv.key for _, page in self._pages(keys_only=True) for kv in page if kv.lease in ended]
            self._apply(self._now(keys))
            for _ in range(done):
                leases.ended.popleft()
        while self.late.keys:
            self._apply(self._now(self.late.keys[0], with_deleted=True))
            self.late.keys.popleft()

    def _within(self, keys: Iterable[bytes]) -> list[bytes]:
        start, end = self._span
        return [key for key in keys if key >= start and (end == b"\0" or key < end)]

    def _now(
        self, keys: Iterable[bytes], *, with_deleted: bool = False
    ) -> Iterator[tuple[bytes, rpc_pb2.RequestOp]]:
        """What these keys are at the source."""
        for key in keys:
            request = rpc_pb2.RangeRequest(key=key)
            found = self._read(request)
            yield from self._puts(found.kvs)
            if with_deleted and not found.kvs:
                yield key, self._delete(key)

    def _change(self, event: kv_pb2.Event) -> rpc_pb2.RequestOp:
        return self._put(event.kv) if event.type == kv_pb2.Event.PUT else self._delete(event.kv.key)

    def _delete(self, key: bytes) -> rpc_pb2.RequestOp:
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=self._rename(key)))

    def _put(self, kv: kv_pb2.KeyValue) -> rpc_pb2.RequestOp:
        lease = self._leases.there(kv.lease) if self._leases is not None and kv.lease else 0
        return rpc_pb2.RequestOp(
            request_put=rpc_pb2.PutRequest(key=self._rename(kv.key), value=kv.value, lease=lease))

    def _puts(self, kvs: Iterable[kv_pb2.KeyValue]) -> Iterator[tuple[bytes, rpc_pb2.RequestOp]]:
        """Without those whose leases have ended meanwhile: they would stay for ever."""
        ended: set[int] = set()
        for kv in kvs:
            if kv.lease in ended:
                continue
            op = self._put(kv)
            if self._leases is not None and kv.lease and not op.request_put.lease:
                ended.add(kv.lease)
            else:
                yield kv.key, op

    def _apply(self, changes: Iterable[tuple[bytes, rpc_pb2.RequestOp]]) -> int:
        """How many, in transactions as large as allowed. With each its key at the source."""
        some: list[tuple[bytes, rpc_pb2.RequestOp]] = []
        size = count = 0
        for key, op in changes:
            if some and (len(some) == self._max_ops or size + op.ByteSize() > _TXN_BYTES):
                self._send(some)
                some, size = [], 0
            some.append((key, op))
            size += op.ByteSize()
            count += 1
        if some:
            self._send(some)
        return count

    def _send(self, changes: list[tuple[bytes, rpc_pb2.RequestOp]]) -> None:
        while not self._is_done(changes):
            assert self._leases is not None
            leases = {op.request_put.lease for _, op in changes} - {0}
            there = {lease for lease in leases if self._leases.again(lease)} | {0}
            # where one is gone at the source, too, its keys' deletion follows
            changes = [(key, op) for key, op in changes if op.request_put.lease in there]
            time.sleep(_AGAIN_S)  # a lease whose end takes a while exists for grants and is none for puts

    def _is_done(self, changes: list[tuple[bytes, rpc_pb2.RequestOp]]) -> bool:
        """One transaction. Repeated, it has the same result, unless an endpoint does it behind later ones.
        False: the target lacks a lease. RequestError."""
        request = rpc_pb2.TxnRequest(success=[op for _, op in changes])
        try:
            self._target.unary("KV/Txn", request, rpc_pb2.TxnResponse, None, True)
        except RequestError as error:
            if self._leases is None or str(error) != LEASE_NOT_FOUND.text:
                raise
            return False
        finally:
            self.late.note(key for key, _ in changes)
        return True
