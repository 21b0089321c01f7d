"""How nodes answer: well, in parts, with a refusal, or by naming another node, as chance has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from struct import Struct

from cluster import errors
from cluster.evaluate.reading.ranges import RangeRead
from cluster.features.auth.reads import Login, Show
from cluster.features.v2.requests import Answer, Kind, split_read
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, HELD, HISTORY_ANSWER, READ, SUBSCRIBED_BODY, Method, Status
from cluster.wire.protobuf import key_value
from tests.unit.proxy.fakes import FakeNode
from tests.unit.proxy.random.nodes import Nodes, Served

_MOST_PARTS = 6
_PART_BYTES = 1000  # the first piece of a large answer
_LEFT = Struct("<Q")  # before a piece of a backup: how much follows
_READS = frozenset((*range(32, 48), *map(int, (
    Method.HISTORY, Method.AUTH_SHOW, Method.MOVES, Method.DOWNGRADE, Method.V2_READ))))
_MAY_BE_ELSEWHERE = frozenset(map(int, (
    Method.RANGE, Method.RANGE_ROWS, Method.STREAM_ROWS, Method.READ_TXN, Method.RANGE_STREAM,
    Method.LEASE_KEYS, Method.HASH_KV)))


class Answers:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._random = nodes.random
        self._of: dict[int, Callable[[Served], bool]] = {
            Method.READ_INDEX: self._read_index, Method.RANGE: self._range,
            Method.RANGE_ROWS: self._rows, Method.STREAM_ROWS: self._rows, Method.RANGE_STREAM: self._stream,
            Method.READ_TXN: self._read_txn, Method.LEASE_KEYS: self._lease_keys, Method.HASH_KV: self._hash,
            Method.HISTORY: self._history, Method.SNAPSHOT: self._snapshot, Method.AUTH_SHOW: self._show,
            Method.FACTS: self._facts, Method.MEMBER_LIST: self._members, Method.LEASE_TTL: self._ttl,
            Method.LEASE_KEEPALIVES: self._renewed, Method.LEASE_KEEPALIVE: self._renewed_one,
            Method.COMPACT: self._compact, Method.MOVES: self._nothing, Method.ADVICE: self._nothing,
            Method.V2_READ: self._v2_read, Method.V2_WRITE: self._v2_write,
            Method.COUNTERS: self._no_counters,
        }
        self._quick = False  # answers are whole and good ones, at once

    def give(self, everything: bool = False) -> None:
        """Nodes answer some of what has come; or ``everything``, and well."""
        self._quick = everything
        for node in list(self._nodes.alive()):
            self._of_node(node)
        self._nodes.net.run()

    def _of_node(self, node: FakeNode) -> None:
        owed = self._nodes.owed[node]
        for served in tuple(owed):
            at_once = self._quick or served.method == Method.SUBSCRIBE  # before what comes behind it
            if (at_once or self._chance(0.5)) and self._whole(served):
                owed.remove(served)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _now_and_then(self, share: float) -> bool:
        return not self._quick and self._chance(share)

    def _whole(self, served: Served) -> bool:
        """Whether nothing more comes of it."""
        node, reads = served.node, served.method in _READS
        node.revision = max(node.revision, self._nodes.revision)
        if served.method == Method.SUBSCRIBE:
            return self._subscribe(served)
        if not reads and node.leader != node.member:
            node.not_leader(served.request, node.leader, node.term)
            served.status = int(Status.NOT_LEADER)
            return True
        if self._now_and_then(0.06):
            served.error(self._random.choice(self._nodes.refusals))
            return True
        if not served.parts and served.method in _MAY_BE_ELSEWHERE and self._now_and_then(0.04):
            served.answer(Status.MOVED, self._nodes.net.context.placement.table.encode())
            return True
        if not served.parts and reads and served.method != Method.SNAPSHOT and self._now_and_then(0.03):
            served.error(errors.COMPACTED)
            return True
        return self._of.get(served.method, self._plain if reads else self._write)(served)

    def _part(self, served: Served, share: float) -> bool:
        return served.parts < _MOST_PARTS and self._now_and_then(share)

    # -- reads

    def _plain(self, served: Served) -> bool:
        served.ok()
        return True

    def _nothing(self, served: Served) -> bool:
        served.ok(b"{}")
        return True

    def _read_index(self, served: Served) -> bool:
        served.node.index(served.request, served.node.applied, served.node.revision)
        return True

    def _range(self, served: Served) -> bool:
        value = b"v" * self._random.choice((1, 400_000))
        answer = pb.RangeResponse(kvs=[{"key": b"a/x", "value": value}], count=1).SerializeToString()
        if not served.parts and self._now_and_then(0.4):
            served.answer(Status.PARTIAL, served.head + answer[:_PART_BYTES])
            served.body = answer[_PART_BYTES:]
            return False
        if served.parts:
            served.answer(Status.OK, served.body)
        else:
            served.ok(answer)
        return True

    def _rows(self, served: Served) -> bool:
        last = not self._part(served, 0.6)
        shard, some = served.node.shard, range(self._random.randint(0, 3))
        keys = [b"%03d/%d/%d" % (served.parts, at, shard) for at in some]
        read = RangeRead(pb.RangeRequest(key=b"\0", range_end=b"\0"), sized=True)
        value = b"v" * self._random.choice((1, 50_000))
        read.feed((key, key_value(key, 1, 1, 1, value, 0)) for key in keys)
        if last:
            read.end()
        wanted = READ.unpack_from(served.body)[1]
        revision = max(served.node.revision, wanted)
        served.answer(Status.OK if last else Status.PARTIAL,
                      HEAD.pack(revision, served.node.term) + b"".join(read.take_sized()))
        return last

    def _stream(self, served: Served) -> bool:
        if self._part(served, 0.8):
            only_a_sign = not served.parts and self._chance(0.7)
            some = b"" if only_a_sign else pb.RangeResponse(kvs=[{"key": b"k"}]).SerializeToString()
            served.answer(Status.PARTIAL, served.head + some)
            return False
        served.ok(pb.RangeResponse(count=1).SerializeToString())
        return True

    def _read_txn(self, served: Served) -> bool:
        asked = pb.TxnRequest.FromString(served.body[READ.size:])
        succeeded = self._chance(0.5)
        found = pb.ResponseOp(response_range=pb.RangeResponse(count=self._random.choice((0, 1))))
        served.ok(pb.TxnResponse(
            succeeded=succeeded, responses=[found for _ in (asked.success if succeeded else asked.failure)]
        ).SerializeToString())
        return True

    def _lease_keys(self, served: Served) -> bool:
        served.ok(pb.LeaseTimeToLiveResponse(keys=[b"q%d" % served.node.shard]).SerializeToString())
        return True

    def _hash(self, served: Served) -> bool:
        """Now and then another shard has removed more. A front compares only what the pruning has reached."""
        at = READ.unpack_from(served.body)[1] or served.node.revision
        compacted = max(self._nodes.net.context.placement.table.pruned, 1) + self._now_and_then(0.2)
        served.ok(pb.HashKVResponse(
            hash=served.node.shard + 1, compact_revision=compacted, hash_revision=at).SerializeToString())
        return True

    def _members(self, served: Served) -> bool:
        served.ok(pb.MemberListResponse(members=[{"ID": 1, "name": "h1"}]).SerializeToString())
        return True

    def _facts(self, served: Served) -> bool:
        served.ok(json.dumps({
            "size_bytes": 1, "size_in_use_bytes": 1, "leader": "1", "term": 1, "role": "follower",
            "member_id": "1", "compacting": self._now_and_then(0.3)}).encode())
        return True

    def _show(self, served: Served) -> bool:
        login = Login(1, False, self._random.choice((b"", b"s" * 32, b"s" * 32)),
                      self._random.choice((b"$h", b"$h", b"$i")))
        served.ok(login.encode() if served.body[READ.size] == int(Show.LOGIN) else b"")
        return True

    # -- watches

    def _subscribe(self, served: Served) -> bool:
        node = served.node
        if self._now_and_then(0.05):
            served.answer(Status.LOST)
            return True
        self._nodes.subscriptions[node].add(served.request.rid)
        served.answer(Status.SUBSCRIBED, SUBSCRIBED_BODY.pack(node.revision + 1, 0))
        node.watermark(node.revision)
        return True

    def _history(self, served: Served) -> bool:
        revision = served.node.revision
        served.answer(Status.OK, HISTORY_ANSWER.pack(revision + 1, revision, 0, 0))
        return True

    # -- what takes long

    def _snapshot(self, served: Served) -> bool:
        """A shard's state is held until its front cancels; the file of all of them comes in pieces."""
        asks_for_the_file = served.body[:2] in (b'["', b'{"') or served.body[READ.size:][:2] in (b'["', b'{"')
        if not asks_for_the_file:
            if not served.parts:
                held = HELD.pack(1, served.node.revision, 0, served.node.member)
                served.answer(Status.PARTIAL, held + b"name%d" % served.node.shard)
            return False
        if served.parts < 2:
            served.answer(Status.PARTIAL, _LEFT.pack(100 * (1 - served.parts)) + b"c" * 100)
            return False
        served.answer(Status.OK)
        return True

    def _compact(self, served: Served) -> bool:
        if not served.parts and self._now_and_then(0.5):
            served.answer(Status.PARTIAL)
            return False
        return self._write(served)

    # -- leases

    def _ttl(self, served: Served) -> bool:
        asked = pb.LeaseTimeToLiveRequest.FromString(served.body)
        left_s = self._random.choice((5, -1))
        served.ok(pb.LeaseTimeToLiveResponse(ID=asked.ID, TTL=left_s).SerializeToString())
        return True

    def _renewed(self, served: Served) -> bool:
        left_s = [self._random.choice((5, 0, -1)) for _ in range(len(served.body) // 8)]
        served.ok(Struct(f"<{len(left_s)}q").pack(*left_s))
        return True

    def _renewed_one(self, served: Served) -> bool:
        asked = pb.LeaseKeepAliveRequest.FromString(served.body)
        served.ok(pb.LeaseKeepAliveResponse(ID=asked.ID, TTL=3).SerializeToString())
        return True

    # -- version 2

    def _v2_read(self, served: Served) -> bool:
        kind = split_read(served.body[READ.size:])[0]
        if kind == Kind.SCAN:
            answer = Answer(7, b"")
        elif kind == Kind.USERS:
            answer = Answer(7, b"{}", code=self._random.choice((200, 401, 1, 1)))
        else:
            answer = self._v2_answer()
        served.ok(answer.encode())
        return True

    def _v2_write(self, served: Served) -> bool:
        self._nodes.revision += 1
        served.node.revision = self._nodes.revision
        served.ok(self._v2_answer().encode())
        return True

    def _v2_answer(self) -> Answer:
        return self._random.choice((
            Answer(7, b""), Answer(7, b""), Answer(7, b'{"x":1}'), Answer(7, b'{"x":1}'),
            Answer(7, b"known", code=self._random.choice((1, 1, 110, 100)))))

    def _no_counters(self, served: Served) -> bool:
        served.error(errors.TIMEOUT)
        return True

    # -- writes

    def _write(self, served: Served) -> bool:
        method = served.method
        alone = method in (Method.PUT, Method.TXN, Method.DELETE_RANGE, Method.LONE)
        if alone and self._now_and_then(0.5 if method == Method.LONE else 0.2):
            served.answer(Status.ELSEWHERE)
            return True
        self._nodes.revision += 1
        served.node.revision = self._nodes.revision
        body = served.body
        if method == Method.WIDE:
            method, body = body[0], body[1:]
        if method == Method.TXN:
            served.ok(self._txn(body))
        elif method == Method.LEASE_GRANT:
            served.ok(pb.LeaseGrantResponse(ID=77, TTL=60).SerializeToString())
        else:
            served.ok()
        return True

    def _txn(self, body: bytes) -> bytes:
        """Of a recipe, too: its key may be of this write or of an older one, on this lease or another."""
        asked, succeeded = pb.TxnRequest.FromString(body), self._chance(0.6)
        revision = self._nodes.revision
        responses = list[pb.ResponseOp]()
        for op in asked.success if succeeded else asked.failure:
            if op.HasField("request_put"):
                responses.append(pb.ResponseOp(response_put=pb.PutResponse()))
            elif op.HasField("request_range"):
                key, created = b"l/%d" % self._random.choice((5, 9)), self._random.choice((3, revision))
                responses.append(pb.ResponseOp(response_range=pb.RangeResponse(
                    kvs=[{"key": key, "create_revision": created}])))
            else:
                responses.append(pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse()))
        return pb.TxnResponse(succeeded=succeeded, responses=responses).SerializeToString()
