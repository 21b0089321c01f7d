"""A client for muster and etcd 3.4 to 3.7, for asyncio; :mod:`muster_client.sync` has the same names without.

Read ``client`` first, then ``kv``, ``ops`` (transactions), ``watch``; ``wire`` has the connections.

A name is loaded when it is first used: a program that needs the connections alone begins sooner.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster_client.admin.auth import AuthStatus, Permission
    from muster_client.admin.maintenance import Alarm, Hash, Status
    from muster_client.admin.members import Member
    from muster_client.admin.snapshots import Saved
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
        NoInstance,
        NoSpace,
        NotHeld,
        PermissionDenied,
        Removed,
        ServerError,
        Taken,
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
    from muster_client.recipes.barriers import Barrier, DoubleBarrier
    from muster_client.recipes.locks import RWLock, Semaphore
    from muster_client.recipes.queues import Item, PriorityQueue, Queue
    from muster_client.services.config import Config
    from muster_client.services.cron import Run
    from muster_client.services.discovery import Discovery
    from muster_client.services.registry import Instance, Registration
    from muster_client.stm import Committed, Isolation, Stm
    from muster_client.watch import Delete, Event, Progress, Put, Snapshot, Watch
    from muster_client.wire.endpoints import Tls
else:
    _PLACES = {
        "admin.auth": "AuthStatus Permission",
        "admin.maintenance": "Alarm Hash Status",
        "admin.members": "Member",
        "admin.snapshots": "Saved",
        "client": "Client",
        "errors": "AuthenticationFailed Compacted DeadlineExceeded FutureRevision InvalidRequest LeaseLost "
                  "LeaseNotFound MusterError NoInstance NoSpace NotHeld PermissionDenied Removed ServerError "
                  "Taken Unavailable Unreachable",
        "kv": "Kv Pages",
        "lease": "Lease LeaseInfo",
        "mirror": "Mirror",
        "model": "Done Found KeyValue TxnResult",
        "ops": "Condition Op Txn delete get key put when",
        "queueing": "Election Leadership Lock",
        "ranges": "EVERYTHING KeyRange prefix since span",
        "recipes.barriers": "Barrier DoubleBarrier",
        "recipes.locks": "RWLock Semaphore",
        "recipes.queues": "Item PriorityQueue Queue",
        "services.config": "Config",
        "services.cron": "Run",
        "services.discovery": "Discovery",
        "services.registry": "Instance Registration",
        "stm": "Committed Isolation Stm",
        "watch": "Delete Event Progress Put Snapshot Watch",
        "wire.endpoints": "Tls",
    }

    def __getattr__(name: str) -> object:
        for place, names in _PLACES.items():
            if name in names.split():
                found = globals()[name] = getattr(import_module(f"muster_client.{place}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

__all__ = [
    "EVERYTHING",
    "Alarm",
    "AuthStatus",
    "AuthenticationFailed",
    "Barrier",
    "Client",
    "Committed",
    "Compacted",
    "Condition",
    "Config",
    "DeadlineExceeded",
    "Delete",
    "Discovery",
    "Done",
    "DoubleBarrier",
    "Election",
    "Event",
    "Found",
    "FutureRevision",
    "Hash",
    "Instance",
    "InvalidRequest",
    "Isolation",
    "Item",
    "KeyRange",
    "KeyValue",
    "Kv",
    "Leadership",
    "Lease",
    "LeaseInfo",
    "LeaseLost",
    "LeaseNotFound",
    "Lock",
    "Member",
    "Mirror",
    "MusterError",
    "NoInstance",
    "NoSpace",
    "NotHeld",
    "Op",
    "Pages",
    "Permission",
    "PermissionDenied",
    "PriorityQueue",
    "Progress",
    "Put",
    "Queue",
    "RWLock",
    "Registration",
    "Removed",
    "Run",
    "Saved",
    "Semaphore",
    "ServerError",
    "Snapshot",
    "Status",
    "Stm",
    "Taken",
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
