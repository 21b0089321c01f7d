"""The same names for programs without asyncio; calls come from any thread.

Each object holds one of the package's own, which runs in the engine's loop. Where a caller of asyncio
cancels, these take ``timeout`` in seconds (TimeoutError). A callback of :meth:`Lease.on_lost` runs in the
engine's thread, where they refuse to wait: RuntimeError.

Read ``base`` first: how the loop is waited for. ``client`` makes what is in the others.
"""

from muster_client.sync.admin import Auth, Maintenance, Members
from muster_client.sync.client import Client
from muster_client.sync.keys import Mirror, Pages, Txn, Watch
from muster_client.sync.leases import Election, Leadership, Lease, Lock
from muster_client.sync.recipes import (
    Barrier,
    DoubleBarrier,
    Item,
    PriorityQueue,
    Queue,
    RWLock,
    Semaphore,
    Stm,
    Take,
)
from muster_client.sync.services import Config, Discovery, Registration, Run

__all__ = [
    "Auth", "Barrier", "Client", "Config", "Discovery", "DoubleBarrier", "Election", "Item", "Leadership",
    "Lease", "Lock", "Maintenance", "Members", "Mirror", "Pages", "PriorityQueue", "Queue", "RWLock",
    "Registration", "Run", "Semaphore", "Stm", "Take", "Txn", "Watch",
]  # fmt: skip
