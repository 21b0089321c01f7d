"""What clients ask of a front, drawn at random. Each put, deletion and writing transaction has a mark of its
own in its body, by which ``nodes`` finds where it came."""

from __future__ import annotations

import re
from itertools import count
from random import Random
from typing import Any, NamedTuple

from cluster.pb import election_pb2, lock_pb2, shards_pb2
from cluster.pb import rpc_pb2 as pb

KEYS = (b"a/x", b"b/y", b"c/z", b"d", b"e/f/g")
ALL: dict[str, Any] = {"key": b"\0", "range_end": b"\0"}
STREAMS = frozenset(("Watch", "LeaseKeepAlive"))  # a client goes on sending
#: What has no end of its own, or waits for what may never come
ENDLESS = STREAMS | {"Observe", "Lock", "Campaign", "Snapshot", "RangeStream"}
_MARK = re.compile(rb"#(\d{8})#")


class Asked(NamedTuple):
    """A client's request. ``message``: None for a stream of requests. ``mark``: a write's; 0: it has none."""

    method: str
    message: Any = None
    mark: int = 0


def mark_of(body: bytes) -> int:
    """The mark of a write as a node gets it. 0: it has none."""
    found = _MARK.search(body)
    return int(found[1]) if found else 0


class Requests:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._marks = count(1)

    def any(self) -> Asked:
        draw = self._random.choice((
            self._read, self._read, self._write, self._write, self._write, self._lease, self._recipe,
            self._upkeep, self._members_and_users, self._stream))
        return draw()

    def of_stream(self, method: str) -> Any:
        """A message of a stream that is open."""
        random = self._random
        if method == "LeaseKeepAlive":
            return pb.LeaseKeepAliveRequest(ID=random.randint(1, 4))
        kind = random.choice(("create", "create", "create", "cancel", "progress"))
        if kind == "create":
            return pb.WatchRequest(create_request=pb.WatchCreateRequest(
                key=random.choice((b"a/x", b"\0")), range_end=random.choice((b"", b"\0")),
                start_revision=random.choice((0, 0, 2, 4, 99)), prev_kv=random.random() < 0.3,
                progress_notify=random.random() < 0.3))
        if kind == "cancel":
            return pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=random.randint(0, 3)))
        return pb.WatchRequest(progress_request=pb.WatchProgressRequest())

    def _read(self) -> Asked:
        choice = self._random.choice
        key, serializable = choice(KEYS), choice((False, False, True))
        one = pb.RangeRequest(key=key, serializable=serializable)
        order: Any = choice((0, 0, 2))
        every = pb.RangeRequest(
            **ALL, serializable=serializable, sort_order=order, revision=choice((0, 0, 3)))
        method = choice(("Range", "RangeStream", "RangeStream", "Txn"))
        if method == "RangeStream":
            every.sort_order = 0  # type: ignore[assignment]
        if method != "Txn":
            return Asked(method, choice((one, every)))
        return Asked(method, pb.TxnRequest(
            compare=[pb.Compare(key=key, range_end=choice((b"", b"\0")), target=pb.Compare.VERSION)],
            success=[pb.RequestOp(request_range=one), pb.RequestOp(request_range=every)],
            failure=[pb.RequestOp(request_range=choice((one, every)))]))

    def _write(self) -> Asked:
        choice, mark = self._random.choice, next(self._marks)
        written = b"#%08d#" % mark
        put = pb.PutRequest(key=choice(KEYS), value=written + b"v" * choice((1, 1, 20_000, 600_000)),
                            lease=choice((0, 0, 5)))
        method = choice(("Put", "Put", "Txn", "DeleteRange"))
        if method == "Put":
            return Asked(method, put, mark)
        if method == "DeleteRange":
            return Asked(method, pb.DeleteRangeRequest(key=written, range_end=choice((b"", b"\0"))), mark)
        compare = pb.Compare(key=put.key, range_end=choice((b"", b"\0")), target=pb.Compare.VERSION)
        beside = pb.RequestOp(request_range=pb.RangeRequest(key=choice(KEYS)))
        success = [pb.RequestOp(request_put=put), *choice(([], [beside]))]
        return Asked(method, pb.TxnRequest(compare=choice(([], [compare])), success=success), mark)

    def _lease(self) -> Asked:
        return self._random.choice((
            Asked("LeaseGrant", pb.LeaseGrantRequest(TTL=5)),
            Asked("LeaseRevoke", pb.LeaseRevokeRequest(ID=5)),
            Asked("LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=1, keys=True)),
            Asked("LeaseLeases", pb.LeaseLeasesRequest()),
        ))

    def _recipe(self) -> Asked:
        lease = self._random.choice((0, 9))
        held = election_pb2.LeaderKey(name=b"e", key=b"e/9", rev=3, lease=9)
        return self._random.choice((
            Asked("Lock", lock_pb2.LockRequest(name=b"l", lease=lease)),
            Asked("Unlock", lock_pb2.UnlockRequest(key=b"l/9")),
            Asked("Campaign", election_pb2.CampaignRequest(name=b"e", lease=lease, value=b"v")),
            Asked("Proclaim", election_pb2.ProclaimRequest(leader=held, value=b"x")),
            Asked("Leader", election_pb2.LeaderRequest(name=b"e")),
            Asked("Observe", election_pb2.LeaderRequest(name=b"e")),
        ))

    def _upkeep(self) -> Asked:
        choice = self._random.choice
        raised = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, alarm=pb.NOSPACE)
        return choice((
            Asked("Snapshot", pb.SnapshotRequest()),
            Asked("Compact", pb.CompactionRequest(revision=2, physical=choice((False, True)))),
            Asked("HashKV", pb.HashKVRequest(revision=choice((0, 3)))),
            Asked("Hash", pb.HashRequest()),
            Asked("Status", pb.StatusRequest()),
            Asked("Defragment", pb.DefragmentRequest()),
            Asked("Alarm", choice((pb.AlarmRequest(), raised))),
            Asked("MoveLeader", pb.MoveLeaderRequest(targetID=2)),
            Asked("Moves", shards_pb2.MovesRequest()),
            Asked("Split", shards_pb2.SplitRequest(key=b"a/x", target=1)),
        ))

    def _members_and_users(self) -> Asked:
        return self._random.choice((
            Asked("MemberAdd", pb.MemberAddRequest(peerURLs=["http://1.2.3.4:1"])),
            Asked("MemberPromote", pb.MemberPromoteRequest(ID=2)),
            Asked("MemberList", pb.MemberListRequest(linearizable=self._random.random() < 0.5)),
            Asked("UserAdd", pb.AuthUserAddRequest(name="a", password="b")),
            Asked("UserDelete", pb.AuthUserDeleteRequest(name="a")),
            Asked("AuthStatus", pb.AuthStatusRequest()),
            Asked("Authenticate", pb.AuthenticateRequest(name="a", password="b")),
        ))

    def _stream(self) -> Asked:
        return Asked(self._random.choice(("Watch", "Watch", "LeaseKeepAlive")))
