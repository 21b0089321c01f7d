"""The client: keys, and what is made of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from muster_client import ranges, stm
from muster_client.admin.auth import Auth
from muster_client.admin.maintenance import Maintenance
from muster_client.admin.members import Members
from muster_client.kv import Kv
from muster_client.lease import Lease, LeaseInfo, every, granted, info, renewed, taken
from muster_client.mirror import Mirror, OnChange
from muster_client.queueing import TTL_S, Election, Leadership, Lock
from muster_client.ranges import Keys, Text
from muster_client.raw.api import Raw
from muster_client.recipes.barriers import Barrier, DoubleBarrier
from muster_client.recipes.locks import RWLock, Semaphore
from muster_client.recipes.queues import PriorityQueue, Queue
from muster_client.services.config import Config, Model
from muster_client.services.cron import Cron, Job
from muster_client.services.discovery import Balance, Discovery
from muster_client.services.leading import while_leading
from muster_client.services.registry import ZONE, Healthy, Registration
from muster_client.stm import Committed, Isolation, Stm
from muster_client.telemetry import Observer
from muster_client.watch import Snapshot, Watch, WatchOptions
from muster_client.wire import engine
from muster_client.wire.calls import Caller, SpacedCaller
from muster_client.wire.connections import Connections
from muster_client.wire.endpoints import Tls, parsed
from muster_client.wire.keeper import Keeper
from muster_client.wire.spaces import Space

TIMEOUT_S = 30.0
INSTANCE_TTL_S = 10  # how long others take a program that has died for alive
Result = TypeVar("Result")


class Client(Kv):
    """A client of a cluster of muster or etcd 3.4 to 3.7.

    ``endpoints``: ``"host1:2379,host2:2379"`` or a list; calls spread over those that are connected.
    ``timeout``: seconds for each call that names none. It connects when it is first used; any loop and any
    thread may use it. ``await close()`` or ``async with`` ends it. ``observer`` is told of each call
    (:mod:`muster_client.telemetry`).
    """

    def __init__(
        self, endpoints: str | Sequence[str] = "127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | bool | None = None, timeout: float = TIMEOUT_S, observer: Observer | None = None,
    ) -> None:
        super().__init__(Caller(Connections(parsed(endpoints, tls)), user, password, timeout, observer))
        self._keeper = Keeper(self._caller)
        self._owner = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections; calls and watches under way fail. Of a namespace: nothing. It goes on where
        its caller is cancelled."""
        if not engine.has_ended() and self._owner:
            await engine.whole(self._end())

    async def _end(self) -> None:
        await self._keeper.close()
        await self._caller.close()

    @property
    def closed(self) -> bool:
        """Whether its connections have ended for good."""
        return self._caller.connections.closed

    async def lease(self, ttl: int = TTL_S, *, id: int = 0, timeout: float | None = None) -> Lease:
        """A lease of ``ttl`` seconds, kept alive until it is revoked or the client ends. ``id``: its ID, if
        the caller chooses it, as one that may have to revoke it without an answer; else it has one by lot."""
        return await granted(self._caller, self._keeper, ttl, id, timeout)

    async def keep(self, lease: int, *, timeout: float | None = None) -> Lease:
        """A lease that another program granted, or this one before it started again: kept alive from now on.
        LeaseNotFound."""
        return await taken(self._caller, self._keeper, lease, timeout)

    async def renew(self, lease: int, *, timeout: float | None = None) -> None:
        """Let any lease run for its whole time again, once. LeaseNotFound."""
        await renewed(self._caller, self._keeper, lease, timeout)

    async def lease_info(self, lease: int | Lease, *, timeout: float | None = None) -> LeaseInfo:
        """What the cluster knows of a lease. LeaseNotFound."""
        return await info(self._caller, lease if isinstance(lease, int) else lease.id, timeout)

    async def leases(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """The IDs of all leases of the cluster, in order."""
        return await every(self._caller, timeout)

    def lock(self, name: Text, *, lease: Lease | None = None, ttl: int = TTL_S) -> Lock:
        """A lock, for ``async with``. Without ``lease`` it has one of ``ttl`` seconds for itself; two locks
        of one name and one lease are the same."""
        return Lock(self, name, lease, ttl)

    def election(self, name: Text) -> Election:
        """An election."""
        return Election(self, name)

    def rwlock(self, name: Text) -> RWLock:
        """A lock of many readers or one writer."""
        return RWLock(self, name)

    def semaphore(self, name: Text, limit: int, *, lease: Lease | None = None, ttl: int = TTL_S) -> Semaphore:
        """A lock that ``limit`` may hold, for ``async with``."""
        return Semaphore(self, name, limit, lease, ttl)

    def barrier(self, name: Text) -> Barrier:
        """A key for which others wait until it is gone."""
        return Barrier(self, name)

    def double_barrier(
        self, name: Text, count: int, *, lease: Lease | None = None, ttl: int = TTL_S
    ) -> DoubleBarrier:
        """``count`` begin together and leave together, for ``async with``."""
        return DoubleBarrier(self, name, count, lease, ttl)

    def queue(self, name: Text) -> Queue:
        """A queue, first in, first out."""
        return Queue(self, name)

    def priority_queue(self, name: Text) -> PriorityQueue:
        """A queue, the lowest priority first."""
        return PriorityQueue(self, name)

    async def stm(
        self, function: Callable[[Stm], Awaitable[Result]], *,
        isolation: Isolation = "serializable_snapshot", prefetch: Iterable[Text] = (),
        timeout: float | None = None,
    ) -> Committed[Result]:
        """Run a function that reads and writes keys until what it read still held when its writes were done
        (:mod:`muster_client.stm`). ``prefetch``: keys that it reads in any case, fetched in one call;
        ``timeout`` holds for each call."""
        return await stm.run(self, function, isolation, prefetch, timeout)

    def register(
        self, service: Text, address: str, *, metadata: Mapping[str, Any] | None = None, zone: str = "",
        ttl: int = INSTANCE_TTL_S, healthy: Healthy | None = None, anew: bool = True,
    ) -> Registration:
        """An instance of a service, ``host:port``, to be found while it lives; for ``async with``.
        ``metadata``, and ``zone`` in it, are told to clients that find it. ``anew``: registered again where
        it was lost."""
        told = {**(metadata or {}), **({ZONE: zone} if zone else {})}
        return Registration(self, service, address, told, ttl, healthy, anew)

    def discover(self, service: Text, *, balance: Balance = "round_robin", zone: str = "") -> Discovery:
        """The instances of a service, for ``async with``."""
        return Discovery(self, service, balance, zone)

    def config(
        self, prefix: Text, model: type[Model], *, on_error: Callable[[Exception], None] | None = None
    ) -> Config[Model]:
        """Keys below a prefix as a dataclass, or a model of pydantic, for ``async with``."""
        return Config(self, prefix, model, on_error)

    async def while_leading(
        self, name: Text, work: Callable[[Leadership], Awaitable[Result]], *, value: Text = "",
        ttl: int = INSTANCE_TTL_S,
    ) -> Result:
        """Do work while this program leads the election ``name``: begin again where the leadership was lost,
        for which the work is cancelled. What the work gives, or raises, ends it; PermissionDenied and the
        like do, too."""
        return await while_leading(self, name, work, value, ttl)

    async def cron(
        self, name: Text, schedule: str | float, job: Job, *, ttl: int = INSTANCE_TTL_S,
        catch_up: bool = True, zone: str = "UTC",
    ) -> None:
        """Take part in running a job by the clock, once in the cluster, until this is cancelled
        (:mod:`muster_client.services.cron`). ``schedule``: cron's five fields in a time zone, whose clock may
        be set (:mod:`muster_client.services.schedules`), or seconds between runs; ``catch_up``: run each that
        was missed while nobody took part, else only the last. A run whose job raises is over, and told to the
        logger ``muster_client``; one whose :meth:`Run.finish` got no answer is run again, unless it was
        ended."""
        await Cron(self, name, schedule, job, ttl, catch_up, zone).run()

    @property
    def auth(self) -> Auth:
        """Users, roles and permissions."""
        return Auth(self._caller)

    @property
    def members(self) -> Members:
        """Members of the cluster."""
        return Members(self._caller)

    @property
    def maintenance(self) -> Maintenance:
        """Status, alarms, snapshots of hosts."""
        return Maintenance(self._caller)

    @property
    def raw(self) -> Raw:
        """Calls and streams of the API's own messages."""
        return Raw(self._caller, self._keeper)

    def namespace(self, prefix: Text) -> Client:
        """This client's connections and leases for the keys that begin so, which are named without it: as
        clientv3's ``namespace``. It needs no closing."""
        begin = ranges.data(prefix)
        if not begin:
            raise ValueError("a namespace has a prefix")
        whole = self._caller
        if isinstance(whole, SpacedCaller):
            begin, whole = whole.space.begin + begin, whole.whole
        spaced = Client.__new__(Client)
        spaced._caller = SpacedCaller(whole, Space(begin))
        spaced._keeper, spaced._owner = self._keeper, False
        return spaced

    def mirror(self, keys: Keys, on_change: OnChange | None = None) -> Mirror:
        """A range kept in memory, in step with the cluster, for ``async with``."""
        return Mirror(self, ranges.of(keys), on_change)

    def watch(
        self, keys: Keys, *, revision: int = 0, previous: bool = False, progress: bool = False,
        snapshots: bool = False,
    ) -> Watch:
        """Changes of keys; :class:`WatchOptions` says what the parameters mean."""
        where = ranges.of(keys)

        async def snapshot() -> Snapshot:
            pages = self.range(where)
            kvs = tuple(await pages.all())
            return Snapshot(kvs, pages.revision, 0)

        return Watch(self._caller, WatchOptions(where, revision, previous, progress, snapshots), snapshot)


def over(caller: Caller) -> Client:
    """A client that calls by a caller, for programs that make their own connections."""
    made = Client.__new__(Client)
    made._caller, made._keeper, made._owner = caller, Keeper(caller), True
    return made
