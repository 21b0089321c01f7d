"""Every error that a client can see: one table, etcd's texts byte for byte, by which Go clients recognise
errors.

The place that finds a fault raises ``EtcdError(KIND)``; it crosses processes as ``number | text``; the edge
turns it into gRPC, JSON or an exit code. Numbers are muster's own, never reused or reordered.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple


class Code(IntEnum):
    OK = 0
    CANCELED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ErrorKind(NamedTuple):
    number: int  # u16 on the wire between processes
    code: int  # gRPC status code
    name: str  # the condition's short name
    text: str  # etcd's message; may hold {placeholders}, which ``error`` fills in

    def error(self, **values: object) -> EtcdError:
        """With the values that its message holds."""
        return EtcdError(self, self.text.format(**values))


class EtcdError(Exception):
    """A request failed in a way its client is told about. Nothing was changed."""

    __slots__ = ("kind", "text")

    def __init__(self, kind: ErrorKind, text: str | None = None) -> None:
        """``text`` replaces the kind's message, for the few kinds whose message holds a value."""
        super().__init__(kind.text if text is None else text)
        self.kind = kind
        self.text = kind.text if text is None else text

    @property
    def code(self) -> int:
        return self.kind.code

    def encode(self) -> bytes:
        """``number u16 | text``, the body of an ERROR or UNKNOWN answer."""
        return _NUMBER.pack(self.kind.number) + self.text.encode()

    @classmethod
    def decode(cls, body: bytes) -> EtcdError:
        """What :meth:`encode` wrote. An unknown number keeps its text under gRPC's Unknown."""
        kind = by_number.get(_NUMBER.unpack_from(body)[0], UNMAPPED)
        return cls(kind, body[_NUMBER.size :].decode(errors="replace"))


_NUMBER = struct.Struct("<H")
by_number: dict[int, ErrorKind] = {}
by_name: dict[str, ErrorKind] = {}


def _kind(number: int, code: Code, name: str, text: str) -> ErrorKind:
    kind = ErrorKind(number, int(code), name, text)
    if number in by_number or name in by_name:
        raise AssertionError(f"error {number} {name} declared twice")
    by_number[number] = by_name[name] = kind
    return kind


# Any failure without a row of its own: sent as Unknown with its plain text, as etcd does.
UNMAPPED = _kind(1, Code.UNKNOWN, "Unmapped", "")

# KV
EMPTY_KEY = _kind(2, Code.INVALID_ARGUMENT, "EmptyKey", "etcdserver: key is not provided")
KEY_NOT_FOUND = _kind(3, Code.INVALID_ARGUMENT, "KeyNotFound", "etcdserver: key not found")
VALUE_PROVIDED = _kind(4, Code.INVALID_ARGUMENT, "ValueProvided", "etcdserver: value is provided")
LEASE_PROVIDED = _kind(5, Code.INVALID_ARGUMENT, "LeaseProvided", "etcdserver: lease is provided")
INVALID_SORT_OPTION = _kind(6, Code.INVALID_ARGUMENT, "InvalidSortOption", "etcdserver: invalid sort option")
TOO_MANY_OPS = _kind(7, Code.INVALID_ARGUMENT, "TooManyOps", "etcdserver: too many operations in txn request")
DUPLICATE_KEY = _kind(
    8, Code.INVALID_ARGUMENT, "DuplicateKey", "etcdserver: duplicate key given in txn request")
COMPACTED = _kind(9, Code.OUT_OF_RANGE, "Compacted", "etcdserver: mvcc: required revision has been compacted")
FUTURE_REV = _kind(
    10, Code.OUT_OF_RANGE, "FutureRev", "etcdserver: mvcc: required revision is a future revision")
NO_SPACE = _kind(11, Code.RESOURCE_EXHAUSTED, "NoSpace", "etcdserver: mvcc: database space exceeded")
REQUEST_TOO_LARGE = _kind(12, Code.INVALID_ARGUMENT, "RequestTooLarge", "etcdserver: request is too large")
# etcd declares ResourceExhausted but sends Unknown; clients match on the text.
TOO_MANY_REQUESTS = _kind(13, Code.UNKNOWN, "TooManyRequests", "etcdserver: too many requests")
MESSAGE_TOO_LARGE = _kind(
    14, Code.RESOURCE_EXHAUSTED, "MessageTooLarge",
    "grpc: received message larger than max ({size} vs. {limit})")

# Lease
LEASE_NOT_FOUND = _kind(20, Code.NOT_FOUND, "LeaseNotFound", "etcdserver: requested lease not found")
LEASE_EXIST = _kind(21, Code.FAILED_PRECONDITION, "LeaseExist", "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = _kind(22, Code.OUT_OF_RANGE, "LeaseTTLTooLarge", "etcdserver: too large lease TTL")

# Watch
WATCH_CANCELED = _kind(30, Code.CANCELED, "WatchCanceled", "etcdserver: watch canceled")

# Cluster membership
MEMBER_EXIST = _kind(40, Code.FAILED_PRECONDITION, "MemberExist", "etcdserver: member ID already exist")
PEER_URL_EXIST = _kind(41, Code.FAILED_PRECONDITION, "PeerURLExist", "etcdserver: Peer URLs already exists")
MEMBER_NOT_ENOUGH_STARTED = _kind(
    42, Code.UNKNOWN, "MemberNotEnoughStarted",
    "etcdserver: re-configuration failed due to not enough started members")
MEMBER_BAD_URLS = _kind(
    43, Code.INVALID_ARGUMENT, "MemberBadURLs", "etcdserver: given member URLs are invalid")
MEMBER_NOT_FOUND = _kind(44, Code.NOT_FOUND, "MemberNotFound", "etcdserver: member not found")
MEMBER_NOT_LEARNER = _kind(
    45, Code.FAILED_PRECONDITION, "MemberNotLearner", "etcdserver: can only promote a learner member")
LEARNER_NOT_READY = _kind(
    46, Code.FAILED_PRECONDITION, "LearnerNotReady",
    "etcdserver: can only promote a learner member which is in sync with leader")
TOO_MANY_LEARNERS = _kind(
    47, Code.FAILED_PRECONDITION, "TooManyLearners", "etcdserver: too many learner members in cluster")
UNHEALTHY = _kind(48, Code.UNAVAILABLE, "Unhealthy", "etcdserver: unhealthy cluster")
NOT_SUPPORTED_FOR_LEARNER = _kind(
    50, Code.FAILED_PRECONDITION, "NotSupportedForLearner", "etcdserver: rpc not supported for learner")
# what an etcd before 3.6 says: its clients ask another host then
NOT_SUPPORTED_FOR_LEARNER_3_5 = _kind(
    51, Code.UNAVAILABLE, "NotSupportedForLearner35", "etcdserver: rpc not supported for learner")

# Maintenance
NOT_LEADER = _kind(60, Code.FAILED_PRECONDITION, "NotLeader", "etcdserver: not leader")
BAD_LEADER_TRANSFEREE = _kind(
    61, Code.FAILED_PRECONDITION, "BadLeaderTransferee", "etcdserver: bad leader transferee")
LEADER_TRANSFER_TIMEOUT = _kind(
    62, Code.UNKNOWN, "LeaderTransferTimeout",
    "etcdserver: request timed out, leader transfer took too long")
# muster's own
UNKNOWN_ALARM = _kind(70, Code.INVALID_ARGUMENT, "UnknownAlarm", "etcdserver: unknown alarm request")
CORRUPT = _kind(63, Code.DATA_LOSS, "Corrupt", "etcdserver: corrupt cluster")
WRONG_DOWNGRADE_VERSION_FORMAT = _kind(
    65, Code.INVALID_ARGUMENT, "WrongDowngradeVersionFormat",
    "etcdserver: wrong downgrade target version format")
INVALID_DOWNGRADE_TARGET_VERSION = _kind(
    66, Code.INVALID_ARGUMENT, "InvalidDowngradeTargetVersion",
    "etcdserver: invalid downgrade target version")
DOWNGRADE_IN_PROCESS = _kind(
    67, Code.FAILED_PRECONDITION, "DowngradeInProcess",
    "etcdserver: cluster has a downgrade job in progress")
NO_INFLIGHT_DOWNGRADE = _kind(
    68, Code.FAILED_PRECONDITION, "NoInflightDowngrade", "etcdserver: no inflight downgrade job")
UNKNOWN_DOWNGRADE_ACTION = _kind(69, Code.UNKNOWN, "UnknownDowngradeAction", "etcdserver: unknown method")
# muster's own, between node and front, which then asks again: the checkpoints do not make one backup
BACKUP_UNFIT = _kind(71, Code.UNAVAILABLE, "BackupUnfit", "a backup could not be made: {reason}")

# Availability
NO_LEADER = _kind(80, Code.UNAVAILABLE, "NoLeader", "etcdserver: no leader")
STOPPED = _kind(83, Code.UNAVAILABLE, "Stopped", "etcdserver: server stopped")
TIMEOUT = _kind(84, Code.UNAVAILABLE, "Timeout", "etcdserver: request timed out")
TIMEOUT_DUE_TO_LEADER_FAIL = _kind(
    85, Code.UNAVAILABLE, "TimeoutDueToLeaderFail",
    "etcdserver: request timed out, possibly due to previous leader failure")
CONTEXT_DEADLINE_EXCEEDED = _kind(
    88, Code.DEADLINE_EXCEEDED, "ContextDeadlineExceeded", "context deadline exceeded")
CONTEXT_CANCELED = _kind(89, Code.CANCELED, "ContextCanceled", "context canceled")
INVALID_CLIENT_API_VERSION = _kind(
    93, Code.INVALID_ARGUMENT, "InvalidClientAPIVersion", "etcdserver: invalid client api version")

# Auth
ROOT_USER_NOT_EXIST = _kind(
    100, Code.FAILED_PRECONDITION, "RootUserNotExist", "etcdserver: root user does not exist")
ROOT_ROLE_NOT_EXIST = _kind(
    101, Code.FAILED_PRECONDITION, "RootRoleNotExist", "etcdserver: root user does not have root role")
USER_ALREADY_EXIST = _kind(
    102, Code.FAILED_PRECONDITION, "UserAlreadyExist", "etcdserver: user name already exists")
USER_EMPTY = _kind(103, Code.INVALID_ARGUMENT, "UserEmpty", "etcdserver: user name is empty")
USER_NOT_FOUND = _kind(104, Code.FAILED_PRECONDITION, "UserNotFound", "etcdserver: user name not found")
ROLE_ALREADY_EXIST = _kind(
    105, Code.FAILED_PRECONDITION, "RoleAlreadyExist", "etcdserver: role name already exists")
ROLE_NOT_FOUND = _kind(106, Code.FAILED_PRECONDITION, "RoleNotFound", "etcdserver: role name not found")
ROLE_EMPTY = _kind(107, Code.INVALID_ARGUMENT, "RoleEmpty", "etcdserver: role name is empty")
AUTH_FAILED = _kind(
    108, Code.INVALID_ARGUMENT, "AuthFailed",
    "etcdserver: authentication failed, invalid user ID or password")
NO_PASSWORD_USER = _kind(
    109, Code.UNKNOWN, "NoPasswordUser",
    "auth: authentication failed, password was given for no password user")
PERMISSION_NOT_GIVEN = _kind(
    110, Code.INVALID_ARGUMENT, "PermissionNotGiven", "etcdserver: permission not given")
PERMISSION_DENIED = _kind(111, Code.PERMISSION_DENIED, "PermissionDenied", "etcdserver: permission denied")
ROLE_NOT_GRANTED = _kind(
    112, Code.FAILED_PRECONDITION, "RoleNotGranted", "etcdserver: role is not granted to the user")
PERMISSION_NOT_GRANTED = _kind(
    113, Code.FAILED_PRECONDITION, "PermissionNotGranted",
    "etcdserver: permission is not granted to the role")
AUTH_NOT_ENABLED = _kind(
    114, Code.FAILED_PRECONDITION, "AuthNotEnabled", "etcdserver: authentication is not enabled")
INVALID_AUTH_TOKEN = _kind(115, Code.UNAUTHENTICATED, "InvalidAuthToken", "etcdserver: invalid auth token")
INVALID_AUTH_MGMT = _kind(
    116, Code.INVALID_ARGUMENT, "InvalidAuthMgmt", "etcdserver: invalid auth management")
AUTH_OLD_REVISION = _kind(
    117, Code.INVALID_ARGUMENT, "AuthOldRevision", "etcdserver: revision of auth store is old")
VERIFY_ONLY_KEY = _kind(
    118, Code.UNKNOWN, "VerifyOnlyKey", "auth: token signing attempted with verify-only key")
BCRYPT_LENGTH = _kind(119, Code.UNKNOWN, "BcryptLength", "bcrypt: password length exceeds 72 bytes")

# Lock and Election services: failures of the calls they make keep their text, under Unknown (UNMAPPED)
ELECTION_LEADER_FIELD = _kind(140, Code.UNKNOWN, "ElectionLeaderField", '"leader" field must be provided')
ELECTION_NOT_LEADER = _kind(141, Code.UNKNOWN, "ElectionNotLeader", "election: not leader")
ELECTION_NO_LEADER = _kind(142, Code.UNKNOWN, "ElectionNoLeader", "election: no leader")
SESSION_EXPIRED = _kind(143, Code.UNKNOWN, "SessionExpired", "mutex: session is expired")
LOST_WATCHER = _kind(144, Code.UNKNOWN, "LostWatcher", "lost watcher waiting for delete")

# RangeStream
UNSUPPORTED_SORT = _kind(
    150, Code.UNIMPLEMENTED, "UnsupportedSort", "RangeStream does not support custom sort orders")
UNSUPPORTED_FILTER = _kind(
    151, Code.UNIMPLEMENTED, "UnsupportedFilter", "RangeStream does not support revision filters")

# The gRPC layer
# muster's own: a fault of this program that a request met. etcd's process would end with a panic.
INTERNAL_FAULT = _kind(159, Code.INTERNAL, "InternalFault", "etcdserver: internal error")
UNKNOWN_METHOD = _kind(
    160, Code.UNIMPLEMENTED, "UnknownMethod", "unknown method {method} for service {service}")
UNKNOWN_SERVICE = _kind(161, Code.UNIMPLEMENTED, "UnknownService", "unknown service {service}")
# muster's own: a body that is no such message. etcd answers so from its gRPC layer, with Go's words.
MALFORMED_REQUEST = _kind(
    162, Code.INTERNAL, "MalformedRequest", "grpc: error unmarshalling request: {reason}")
MALFORMED_JSON = _kind(163, Code.INVALID_ARGUMENT, "MalformedJSON", "{reason}")

# muster's own: what a peer port beyond this machine needs (decision 116)
PEER_KEY_WAYS = (
    "give every host the same --peer-key-file (muster peer-keys FILE makes it), or https URLs and a "
    "--peer-trusted-ca-file, or say --peer-insecure")
TAKES_NO_PEER = _kind(
    190, Code.FAILED_PRECONDITION, "TakesNoPeer", f"muster: this host takes no peers: {PEER_KEY_WAYS}")
PEERS_OVER_HTTP = _kind(
    191, Code.FAILED_PRECONDITION, "PeersOverHTTP",
    "muster: the hosts talk over http: stop all, start all with https peer URLs, then update the members'")

# muster's own: growth
GROWTH_TOO_SOON = _kind(
    170, Code.FAILED_PRECONDITION, "GrowthTooSoon",
    "muster: {hosts} have not said that they know data of level {level}: upgrade and start them first")
GROWTH_UNKNOWN = _kind(
    171, Code.FAILED_PRECONDITION, "GrowthUnknown",
    "muster: the leader's version knows no data of level {level}, and none above {known}")
GROWTH_UNSURE = _kind(
    172, Code.FAILED_PRECONDITION, "GrowthUnsure",
    "muster: not known to run a version that knows data of level {level} now: {hosts}; start that version "
    "there first")

# muster's own: shards that are born and retired
SHARD_LEVEL = _kind(
    173, Code.FAILED_PRECONDITION, "ShardLevel",
    "muster: the cluster's data is at level {level}, and this needs level {needed}: run `musterctl shard "
    "enable-growth` first, after which older versions refuse this data for good")
SHARD_BUSY = _kind(
    174, Code.FAILED_PRECONDITION, "ShardBusy",
    "muster: shard {shard} is {state}: ask again once that is done")
SHARD_HOSTS_CHANGE = _kind(
    175, Code.FAILED_PRECONDITION, "ShardHostsChange",
    "muster: the cluster's members change: ask again once that is done")
SHARD_HOSTS_UNSURE = _kind(
    176, Code.FAILED_PRECONDITION, "ShardHostsUnsure",
    "muster: a shard needs all hosts, and these are down or run an older version: {hosts}")
SHARD_UNKNOWN = _kind(177, Code.NOT_FOUND, "ShardUnknown", "muster: there is no shard {shard}")
SHARD_OWNS_KEYS = _kind(
    178, Code.FAILED_PRECONDITION, "ShardOwnsKeys", "muster: shard {shard} owns keys: move its keys first")
SHARD_LIMIT = _kind(
    179, Code.FAILED_PRECONDITION, "ShardLimit", "muster: a cluster may have {most} shards at a time")
ADVICE_UNKNOWN = _kind(
    189, Code.FAILED_PRECONDITION, "AdviceUnknown",
    "muster: the leader of shard 0 runs an older version, which gives no advice")
MOVE_REFUSED = _kind(181, Code.FAILED_PRECONDITION, "MoveRefused", "muster: {reason}")
MOVE_SETTLES = _kind(
    183, Code.ABORTED, "MoveSettles",
    "muster: another change of placement is being applied: ask again")
SHARD_STAYS = _kind(
    184, Code.FAILED_PRECONDITION, "ShardStays", "muster: shard 0 has the order of all changes, and stays")
MOVE_UNKNOWN = _kind(182, Code.NOT_FOUND, "MoveUnknown", "muster: no move {move} is under way")

# WatchResponse.cancel_reason: the stream stays open
WATCH_RANGE_EMPTY = "mvcc: watcher range is empty"
WATCH_DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
WATCH_NEGATIVE_START = COMPACTED.text


def watch_cancel_reason(error: EtcdError) -> str:
    """A failed permission check on a watch stream, as Go renders a status."""
    return f"rpc error: code = {_GO_CODE_NAME[error.code]} desc = {error.text}"


_GO_CODE_NAME: dict[int, str] = {
    int(code): "OK" if code == 0 else "".join(part.capitalize() for part in code.name.split("_"))
    for code in Code}
