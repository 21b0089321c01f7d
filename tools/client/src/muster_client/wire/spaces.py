"""Keys below a prefix: what a namespace adds to requests and takes from answers, as clientv3/namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import KeyRange, prefix


class Space:
    """The keys that begin so."""

    def __init__(self, begin: bytes) -> None:
        self.begin = begin
        self._end = prefix(begin).end
        self._asks: dict[type, Callable[[Any], None]] = {
            pb.RangeRequest: self._span, pb.DeleteRangeRequest: self._span, pb.PutRequest: self._span,
            pb.TxnRequest: self._txn, pb.WatchCreateRequest: self._span, pb.WatchRequest: self._watch,
        }
        self._tells: dict[type, Callable[[Any], None]] = {
            pb.RangeResponse: self._found, pb.PutResponse: self._previous,
            pb.DeleteRangeResponse: self._found, pb.TxnResponse: self._results,
            pb.LeaseTimeToLiveResponse: self._lease,
        }

    def asked(self, request: Any) -> Any:
        """The same request of the whole store."""
        if (change := self._asks.get(type(request))) is None:
            return request
        whole = type(request)()
        whole.CopyFrom(request)
        change(whole)
        return whole

    def told(self, answer: Any) -> None:
        """Change an answer of the whole store into one of this space."""
        if (change := self._tells.get(type(answer))) is not None:
            change(answer)

    def _watch(self, request: pb.WatchRequest) -> None:
        self._span(request.create_request)

    def range(self, keys: KeyRange) -> KeyRange:
        """The same keys in the whole store."""
        end = keys.end
        if end:
            end = self._end if end == b"\0" else self.begin + end
        return KeyRange(self.begin + keys.start, end)

    def event(self, event: kv_pb2.Event) -> None:
        """Change a watch's event into one of this space."""
        event.kv.key = event.kv.key[len(self.begin):]
        if event.HasField("prev_kv"):
            event.prev_kv.key = event.prev_kv.key[len(self.begin):]

    def _span(self, request: Any) -> None:
        where = self.range(KeyRange(request.key, getattr(request, "range_end", b"")))
        request.key = where.start
        if where.end:
            request.range_end = where.end

    def _txn(self, request: pb.TxnRequest) -> None:
        for compare in request.compare:
            self._span(compare)
        for op in (*request.success, *request.failure):
            kind = op.WhichOneof("request")
            if kind is not None:
                (self._txn if kind == "request_txn" else self._span)(getattr(op, kind))

    def _bare(self, kv: kv_pb2.KeyValue) -> None:
        kv.key = kv.key[len(self.begin):]

    def _found(self, answer: Any) -> None:
        for kv in answer.kvs if isinstance(answer, pb.RangeResponse) else answer.prev_kvs:
            self._bare(kv)

    def _previous(self, answer: pb.PutResponse) -> None:
        if answer.HasField("prev_kv"):
            self._bare(answer.prev_kv)

    def _results(self, answer: pb.TxnResponse) -> None:
        for result in answer.responses:
            if (kind := result.WhichOneof("response")) is not None:
                self.told(getattr(result, kind))

    def _lease(self, answer: pb.LeaseTimeToLiveResponse) -> None:
        own = [key[len(self.begin):] for key in answer.keys if key.startswith(self.begin)]
        del answer.keys[:]
        answer.keys.extend(own)
