"""Which writes are refused: all shards of a host share ``--quota-backend-bytes``.

NOSPACE comes of it as in etcd: with the request that does not fit, or with a put that others let in.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import structlog

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import validate
from cluster.features.moves import UNBOUNDED
from cluster.features.v2.requests import renews
from cluster.pb import rpc_pb2
from cluster.settings import NodeSettings
from cluster.wire.messages import Method
from node.storage.keys import PUT
from node.upkeep.space.alarms import Alarms
from node.upkeep.space.costs import PUT_COST, cost
from node.upkeep.space.disks import ENOUGH, LOOK_BYTES, VERY_SHORT, Logged
from node.upkeep.space.shortage import Shortage
from node.upkeep.space.sizes import Sizes

if TYPE_CHECKING:
    from node.storage import StateStore

log = structlog.get_logger("upkeep")

_CHANGES = 5_000  # are looked at at a time, for a put among them
_KEY_WRITES = frozenset((Method.PUT, Method.DELETE_RANGE, Method.TXN, Method.COMPACT, Method.LEASE_GRANT,
                         Method.LEASE_REVOKE))


class Quota:
    def __init__(self, settings: NodeSettings, store: StateStore, *, alarms: Alarms, shortage: Shortage,
                 logged: Logged) -> None:
        common = settings.common
        self._store = store
        self._alarms = alarms
        self._shortage = shortage
        self._logged = logged
        self.most = settings.quota_backend_bytes  # <= 0: off
        self._most_ops = common.max_txn_ops
        self._shard = settings.shard
        self._sizes = Sizes(common.run_dir, settings.shard, common.shard_count)
        self.full = False
        self._look_at = 0  # log bytes
        self._fits = 0  # requests of so many bytes together are within the quota until then
        self.tell_at, self._tell_step = 0, LOOK_BYTES  # log bytes
        self._quiet_to = store.revision  # what was put until then raises no alarm (any more)
        self._wants_alarm = False  # NOSPACE was asked for, and no alarm has been applied since

    def share(self) -> None:
        """Other shards of this host may come."""
        self._sizes.share()

    # -- requests

    def refusal(self, method: int, body: bytes) -> ErrorKind | None:
        """Why a write must be refused. While a member is corrupt no key, lease or history changes, as in
        etcd."""
        if self._alarms.corrupt and method in _KEY_WRITES:
            refusal = errors.CORRUPT
        elif self.exceeded(method, body):
            refusal = errors.NO_SPACE
        else:
            return None
        return _mistake(body) or refusal if method == Method.PUT else refusal

    def exceeded(self, method: int, body: bytes) -> bool:
        """Whether a write must be refused for lack of space (etcd's NOSPACE). Deletes pass, and what renews a
        TTL: clients' registrations would end otherwise."""
        if self.full or self._logged.own >= self._look_at:  # there may be room by now
            self.look()
        if not self.closed:
            if self.fits(len(body)):
                return False
            adds = cost(method, body)
            if not adds or self.in_use() + adds < self.most:
                return False
            self._refused(body)  # as etcd does: one request that is too large for what is left
            return True
        if cost(method, body):
            if self.full:
                self._refused(body)
            return True
        return self._shortage.store >= VERY_SHORT and (
            method in (Method.DELETE_RANGE, Method.TXN) or (method == Method.V2_WRITE and renews(body)))

    def fits(self, size: int) -> bool:
        """Whether requests of ``size`` bytes together are certainly within the quota."""
        return size < self._fits

    def _refused(self, body: bytes) -> None:
        """A request does not fit; an empty body is no request. The alarm is asked for again each second."""
        if body and not self._wants_alarm:
            self._ask()

    def _ask(self) -> None:
        self._wants_alarm = True
        self._alarms.want(rpc_pb2.NOSPACE)

    @property
    def closed(self) -> bool:
        """Whether data is refused, of whatever size."""
        return self.full or self._alarms.no_space or self._shortage.store > ENOUGH

    @property
    def scarce(self) -> bool:
        """Whether three quarters are in use."""
        return 0 < 3 * self.most <= 4 * self.in_use()

    # -- looks

    def in_use(self) -> int:
        """What all shards have in use on this host; tells the others what this one has."""
        own = self._store.size_in_use_bytes()
        self._sizes.tell(own)
        self.tell_at = self._logged.own + self._tell_step
        return own + self._sizes.others()

    def sizes(self) -> dict[int, int]:
        """What each shard has in use on this host."""
        own = self._store.size_in_use_bytes()
        return {**self._sizes.each(), self._shard: own}

    def look(self) -> None:
        """What is left, and when the next look is due."""
        left = self.most - self.in_use() - PUT_COST if self.most > 0 else UNBOUNDED
        # a burst does not pass it between two seconds, nor do the shards together
        self._tell_step = max(left // (4 * self._sizes.shards), LOOK_BYTES)
        self._look_at = self._logged.own + self._tell_step
        self._fits = left - self._tell_step - PUT_COST * self._most_ops
        full = left <= 0
        if full and not self.full:
            log.warning(
                "the space quota is used up: writes are refused until data is deleted and compacted, and the "
                "alarm disarmed",
                quota_bytes=self.most,
            )
        self.full = full
        if not full:
            self._quiet_to = self._store.revision
        elif not (self._alarms.no_space or self._wants_alarm) and self._put_since():
            self._alarms.want(rpc_pb2.NOSPACE)  # as etcd's: all refuse then

    def _put_since(self) -> bool:
        """Whether a key was put here since the last alarm, or since there was room: a disarmed full store
        gets another alarm only with the next put, as in etcd."""
        store = self._store
        if store.revision <= self._quiet_to:
            return False
        first = max(self._quiet_to + 1, store.compact_revision)
        looked, last = 0, first
        for revision, _, kind, _ in islice(store.changes(first), _CHANGES):
            if kind == PUT:
                return True
            looked, last = looked + 1, revision
        # the next look goes on there; of what one request deletes no more than that is looked at
        self._quiet_to = store.revision if looked < _CHANGES else max(first, last - 1)
        return False

    def alarms_changed(self) -> None:
        self._wants_alarm, self._quiet_to = False, self._store.revision
        self.in_use()  # there may be room now

    def second(self) -> None:
        self.look()
        if self._wants_alarm:
            self._ask()

    def close(self) -> None:
        self._sizes.close()


def _mistake(body: bytes) -> ErrorKind | None:
    """What is wrong with a put, whatever room there is: a front with one shard looks at its key alone."""
    try:
        validate.check_put(validate.parse(rpc_pb2.PutRequest.FromString, body))
    except EtcdError as error:
        return error.kind if error.kind in (errors.VALUE_PROVIDED, errors.LEASE_PROVIDED) else None
    return None
