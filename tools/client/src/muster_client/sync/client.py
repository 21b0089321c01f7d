"""The client."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from muster_client import client as asynchronous
from muster_client import ops, stm
from muster_client.client import INSTANCE_TTL_S
from muster_client.errors import MusterError
from muster_client.kv import PAGE_KEYS, Kv
from muster_client.lease import Lease as _Lease
from muster_client.lease import LeaseInfo, to_its_end
from muster_client.queueing import TTL_S, is_lost, until_lost
from muster_client.ranges import Keys, Text
from muster_client.services.config import Model
from muster_client.services.discovery import Balance
from muster_client.sync.admin import Auth, Maintenance, Members
from muster_client.sync.base import Asking, Within, wait
from muster_client.sync.keys import Mirror, Pages, Txn, Watch
from muster_client.sync.leases import Election, Leadership, Lease, Lock, inner_of, unused
from muster_client.sync.raw import Raw
from muster_client.sync.recipes import (
    Barrier,
    DoubleBarrier,
    PriorityQueue,
    Queue,
    RWLock,
    Semaphore,
    Stm,
)
from muster_client.sync.services import Config, Discovery, Registration, Run, in_thread
from muster_client.telemetry import Observer
from muster_client.wire import engine
from muster_client.wire.endpoints import Tls
from muster_client.wire.retries import is_final

log = logging.getLogger("muster_client")
Result = TypeVar("Result")
_AGAIN_S = 1.0


class Client(Within):
    """See :class:`muster_client.Client`."""

    def __init__(
        self, endpoints: str | Sequence[str] = "127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | bool | None = None, timeout: float = asynchronous.TIMEOUT_S,
        observer: Observer | None = None,
    ) -> None:
        self.inner = asynchronous.Client(
            endpoints, user=user, password=password, tls=tls, timeout=timeout, observer=observer)

    get = Asking(Kv.get)
    count = Asking(Kv.count)
    put = Asking(Kv.put)
    delete = Asking(Kv.delete)
    txn = Asking(Kv.txn)
    compact = Asking(Kv.compact)

    def close(self) -> None:
        if not engine.has_ended():
            wait(self.inner.close())

    def range(
        self, keys: Keys, *, revision: int = 0, page: int = PAGE_KEYS, descending: bool = False,
        keys_only: bool = False, serializable: bool = False, timeout: float | None = None,
    ) -> Pages:
        return Pages(self.inner.range(
            keys, revision=revision, page=page, descending=descending, keys_only=keys_only,
            serializable=serializable, timeout=timeout))

    def when(self, *conditions: ops.Condition, timeout: float | None = None) -> Txn:
        return Txn(self.inner.when(*conditions, timeout=timeout))

    @property
    def closed(self) -> bool:
        return self.inner.closed

    def lease(self, ttl: int = TTL_S, *, id: int = 0, timeout: float | None = None) -> Lease:
        undo = unused if id else _Lease.revoke
        return Lease(wait(self.inner.lease(ttl, id=id, timeout=timeout), undo=undo))

    def keep(self, lease: int, *, timeout: float | None = None) -> Lease:
        return Lease(wait(self.inner.keep(lease, timeout=timeout), undo=unused))

    def renew(self, lease: int, *, timeout: float | None = None) -> None:
        wait(self.inner.renew(lease, timeout=timeout))

    def lease_info(self, lease: int | Lease, *, timeout: float | None = None) -> LeaseInfo:
        return wait(self.inner.lease_info(lease if isinstance(lease, int) else lease.id, timeout=timeout))

    def leases(self, *, timeout: float | None = None) -> tuple[int, ...]:
        return wait(self.inner.leases(timeout=timeout))

    def lock(self, name: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        return Lock(self.inner.lock(name, lease=inner_of(lease), ttl=ttl))

    def election(self, name: Text) -> Election:
        return Election(self.inner.election(name))

    @property
    def raw(self) -> Raw:
        return Raw(self.inner.raw)

    def mirror(self, keys: Keys) -> Mirror:
        """See :meth:`muster_client.Client.mirror`; :meth:`watch` reports changes here."""
        return Mirror(self.inner.mirror(keys))

    def watch(
        self, keys: Keys, *, revision: int = 0, previous: bool = False, progress: bool = False,
        snapshots: bool = False,
    ) -> Watch:
        return Watch(self.inner.watch(
            keys, revision=revision, previous=previous, progress=progress, snapshots=snapshots))

    def rwlock(self, name: Text) -> RWLock:
        return RWLock(self.inner.rwlock(name))

    def semaphore(self, name: Text, limit: int, *, lease: Lease | None = None, ttl: int = TTL_S) -> Semaphore:
        return Semaphore(self.inner.semaphore(name, limit, lease=inner_of(lease), ttl=ttl))

    def barrier(self, name: Text) -> Barrier:
        return Barrier(self.inner.barrier(name))

    def double_barrier(
        self, name: Text, count: int, *, lease: Lease | None = None, ttl: int = TTL_S
    ) -> DoubleBarrier:
        return DoubleBarrier(self.inner.double_barrier(name, count, lease=inner_of(lease), ttl=ttl))

    def queue(self, name: Text) -> Queue:
        return Queue(self.inner.queue(name))

    def priority_queue(self, name: Text) -> PriorityQueue:
        return PriorityQueue(self.inner.priority_queue(name))

    def stm(
        self, function: Callable[[Stm], Result], *, isolation: stm.Isolation = "serializable_snapshot",
        prefetch: Iterable[Text] = (), timeout: float | None = None,
    ) -> stm.Committed[Result]:
        """See :meth:`muster_client.Client.stm`; the function runs in this thread."""
        begun, keys, attempts = stm.begun(self.inner, isolation, timeout), tuple(prefetch), 0
        while True:
            attempts += 1
            if keys:
                wait(begun.fetch(keys))
            value = function(Stm(begun))
            if wait(stm.committed(begun)):
                return stm.Committed(value, begun.revision, attempts)

    def register(
        self, service: Text, address: str, *, metadata: Mapping[str, Any] | None = None, zone: str = "",
        ttl: int = INSTANCE_TTL_S, healthy: Callable[[], bool] | None = None, anew: bool = True,
    ) -> Registration:
        """See :meth:`muster_client.Client.register`; ``healthy`` is called in a thread of its own; while
        that hangs, the instance is not healthy."""
        return Registration(self.inner.register(
            service, address, metadata=metadata, zone=zone, ttl=ttl, anew=anew,
            healthy=None if healthy is None else in_thread(healthy, daemon=True)))

    def discover(self, service: Text, *, balance: Balance = "round_robin", zone: str = "") -> Discovery:
        return Discovery(self.inner.discover(service, balance=balance, zone=zone))

    def config(
        self, prefix: Text, model: type[Model], *, on_error: Callable[[Exception], None] | None = None
    ) -> Config[Model]:
        """See :meth:`muster_client.Client.config`; ``on_error`` is called in the engine's thread."""
        return Config(self.inner.config(prefix, model, on_error=on_error))

    def while_leading(
        self, name: Text, work: Callable[[Leadership], Result], *, value: Text = "",
        ttl: int = INSTANCE_TTL_S,
    ) -> Result:
        """See :meth:`muster_client.Client.while_leading`. The work runs in this thread, and is not cancelled:
        it looks at ``leadership.lost`` now and then, and is run again where it raises a MusterError then."""
        told = value or socket.gethostname()
        while True:
            try:
                leadership = self.election(name).campaign(told, ttl=ttl).campaign()
            except MusterError as error:
                if self.closed or is_final(error):
                    raise
                log.warning("%r: no campaign: %s", name, error)
                time.sleep(_AGAIN_S)
                continue
            inner = leadership.inner
            try:
                watching = engine.Awaited(until_lost(inner, inner.lease))  # for `lost`
                try:
                    watching.begin()
                    return work(leadership)
                finally:
                    watching.cancel()
            except MusterError as error:
                if not wait(is_lost(inner)):
                    raise
                log.warning("%r: the leadership was lost, its work begins again: %s", name, error)
            finally:
                wait(to_its_end(inner.resign()))

    def cron(
        self, name: Text, schedule: str | float, job: Callable[[Run], None], *, ttl: int = INSTANCE_TTL_S,
        catch_up: bool = True, zone: str = "UTC", timeout: float | None = None,
    ) -> None:
        """See :meth:`muster_client.Client.cron`. The job runs in a thread of its own, and is not cancelled
        where the leadership is lost: :attr:`Run.lost` says so, and its fenced writes fail. ``timeout``: take
        part for so long (TimeoutError)."""
        wait(self.inner.cron(
            name, schedule, lambda run: in_thread(job)(Run(run)), ttl=ttl, catch_up=catch_up, zone=zone),
            timeout)

    @property
    def auth(self) -> Auth:
        return Auth(self.inner.auth)

    @property
    def members(self) -> Members:
        return Members(self.inner.members)

    @property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.inner.maintenance)

    def namespace(self, prefix: Text) -> Client:
        """See :meth:`muster_client.Client.namespace`."""
        spaced = Client.__new__(Client)
        spaced.inner = self.inner.namespace(prefix)
        return spaced
