"""A client for muster and etcd 3.4 to 3.7, for asyncio; :mod:`muster_client.sync` has the same names without.

Read ``client`` first, then ``kv``, ``ops`` (transactions), ``watch``; ``wire`` has the connections.
"""

from muster_client.client import Client
from muster_client.errors import (
    AuthenticationFailed,
    Compacted,
    DeadlineExceeded,
    FutureRevision,
    InvalidRequest,
    LeaseLost,
    LeaseNotFound,
    MusterError,
    NoSpace,
    NotHeld,
    PermissionDenied,
    ServerError,
    Unavailable,
    Unreachable,
)
from muster_client.kv import Kv, Pages
from muster_client.lease import Lease, LeaseInfo
from muster_client.mirror import Mirror
from muster_client.model import Done, Found, KeyValue, TxnResult
from muster_client.ops import Condition, Op, Txn, delete, get, key, put, when
from muster_client.queueing import Election, Leadership, Lock
from muster_client.ranges import EVERYTHING, KeyRange, prefix, since, span
from muster_client.watch import Delete, Event, Progress, Put, Snapshot, Watch
from muster_client.wire.endpoints import Tls

__all__ = [
    "EVERYTHING",
    "AuthenticationFailed",
    "Client",
    "Compacted",
    "Condition",
    "DeadlineExceeded",
    "Delete",
    "Done",
    "Election",
    "Event",
    "Found",
    "FutureRevision",
    "InvalidRequest",
    "KeyRange",
    "KeyValue",
    "Kv",
    "Leadership",
    "Lease",
    "LeaseInfo",
    "LeaseLost",
    "LeaseNotFound",
    "Lock",
    "Mirror",
    "MusterError",
    "NoSpace",
    "NotHeld",
    "Op",
    "Pages",
    "PermissionDenied",
    "Progress",
    "Put",
    "ServerError",
    "Snapshot",
    "Tls",
    "Txn",
    "TxnResult",
    "Unavailable",
    "Unreachable",
    "Watch",
    "delete",
    "get",
    "key",
    "prefix",
    "put",
    "since",
    "span",
    "when",
]  # fmt: skip
