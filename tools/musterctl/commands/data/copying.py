"""``make-mirror`` and ``import``: copy one cluster's keys into another, and follow its changes.

``import`` copies leases too. Revisions and versions are the target's own: only a restored backup keeps them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from asyncio import wrap_future
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from grpc import StatusCode
from muster_client.errors import MusterError
from muster_client.pb import kv_pb2, rpc_pb2

from cluster.gotext import prefix_end
from tools.client.channels import Config
from tools.musterctl.client import Client, RequestError, credentials, failing_with, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.keys.watch import cancel_reason

_PAGE = 512
_TXN_BYTES = 1 << 20
_MIRROR_TELLS_S = 30.0
_IMPORT_TELLS_S = 5.0
_FORGET_EVERY_S = 10.0
_LIMIT_S = 5.0
# a connection's loss is known by then; and all that its server had taken is done, or never is
_LOST_S, _LATEST_S = 1.0, 30.0
_AGAIN_S = 0.1
_NO_LEASE = "etcdserver: requested lease not found"
_FUTURE = "etcdserver: mvcc: required revision is a future revision"
_EVERYTHING = (b"\0", b"\0")
_ASKED, _TOLD = "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveResponse


class Copier:
    """Copies a span of keys. ``rename``: a key's name at the target."""

    def __init__(self, source: Client, target: Client, span: tuple[bytes, bytes], max_ops: int,
                 rename: Callable[[bytes], bytes], leases: Leases | None = None) -> None:
        self._source, self._target = source, target
        self._span = span
        self._max_ops = max(1, max_ops)
        self._rename = rename
        self._leases = leases
        self._late: deque[list[bytes]] = deque()  # keys to copy once more
        self.unsure: list[str] = []  # endpoints that may still do what another one has done
        self.copied = 0
        self.revision = 0  # of the source, up to which all is copied
        self.on_progress: Callable[[], None] = lambda: None

    def base(self, since: int = 0) -> None:
        """Copy all keys, at one revision. ``since``: :meth:`follow` begins with this one, if it is older.
        RequestError, before it copies: the source has compacted that."""
        if since > 0:
            self._look_at(since)
        for at, page in self._pages():
            self.revision = min(at, since - 1) if since > 0 else at
            kvs = self._living(page)
            self._apply((kv.key, self._put(kv)) for kv in kvs)
            self.copied += len(kvs)
            self.on_progress()
        self._mend()

    def _look_at(self, revision: int) -> None:
        """RequestError: the source has it no more."""
        request = rpc_pb2.RangeRequest(key=self._span[0], revision=revision, keys_only=True)
        try:
            self._source.unary("KV/Range", request, rpc_pb2.RangeResponse, None, True)
        except RequestError as error:
            if str(error) != _FUTURE:
                raise

    def _pages(self, *, keys_only: bool = False) -> Iterator[tuple[int, Sequence[kv_pb2.KeyValue]]]:
        """All of the span at one revision, which is told with each; ``keys_only``: as they are now."""
        start, end = self._span
        at, more = 0, True
        while more:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=_PAGE,
                                           revision=0 if keys_only else at, keys_only=keys_only)
            page = self._source.unary("KV/Range", request, rpc_pb2.RangeResponse, None, True)
            at = at or page.header.revision
            yield at, page.kvs
            more = page.more and len(page.kvs) > 0
            if more:
                start = page.kvs[-1].key + b"\0"

    def follow(self) -> None:
        """Copy changes as they come, revision by revision, until interrupted. RequestError."""
        key, range_end = self._span
        watch = rpc_pb2.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=self.revision + 1, progress_notify=True)
        told = self._source.raw().watch(watch, on_again=self._source.again)
        for response in self._source.each(told, meanwhile=self._mend):
            if response.canceled:
                raise Exit(1, cancel_reason(response))
            for revision, events in groupby(response.events, lambda event: event.kv.mod_revision):
                changes = list(events)
                self._apply((event.kv.key, self._change(event)) for event in changes)
                self.copied += len(changes)
                self.revision = revision
            if not response.events:  # with some, its revision is the store's: more of the past may follow
                self.revision = max(self.revision, response.header.revision)
            self._mend()
            self.on_progress()

    @property
    def is_whole(self) -> bool:
        """Whether the target lacks nothing up to the revision."""
        return not self._late and (self._leases is None or not self._leases.ended)

    @property
    def unanswered(self) -> list[str]:
        """Endpoints that may still do what another one has done, or what is on its way."""
        return sorted({*self.unsure.copy(), *self._target.unanswered.copy()})

    def settle(self) -> None:
        """Wait until endpoints can do nothing late any more, unless one stays away. RequestError."""
        if self.unsure:
            _say(f"waits for {', '.join(self.unanswered)}, which left changes unanswered")
        until = time.monotonic() + _LOST_S + _LATEST_S + _LIMIT_S
        while self.unsure and time.monotonic() < until:
            time.sleep(_AGAIN_S)
        self._mend()

    def _mend(self) -> None:
        """Copy once more what the target lost with leases, and what old transactions may have changed. Later
        changes follow."""
        leases = self._leases
        while leases is not None and leases.ended:
            done = 1
            try:
                keys = self._within(leases.keys(leases.ended[0]))
            except RequestError as error:
                if error.code is not StatusCode.PERMISSION_DENIED:
                    raise
                # one of its keys is none of this user's, who may read the span
                done, ended = len(leases.ended), set(leases.ended.copy())  # others come meanwhile
                keys = [kv.key for _, page in self._pages(keys_only=True) for kv in page if kv.lease in ended]
            self._apply(self._now(keys))
            for _ in range(done):
                leases.ended.popleft()
        while self._late:
            self._apply(self._now(self._late[0], with_deleted=True))
            self._late.popleft()

    def _within(self, keys: Iterable[bytes]) -> list[bytes]:
        start, end = self._span
        return [key for key in keys if key >= start and (end == b"\0" or key < end)]

    def _now(
        self, keys: Iterable[bytes], *, with_deleted: bool = False
    ) -> Iterator[tuple[bytes, rpc_pb2.RequestOp]]:
        """What these keys are at the source."""
        for key in keys:
            request = rpc_pb2.RangeRequest(key=key)
            found = self._source.unary("KV/Range", request, rpc_pb2.RangeResponse, None, True)
            for kv in self._living(found.kvs):
                yield key, self._put(kv)
            if with_deleted and not found.kvs:
                yield key, self._delete(key)

    def _change(self, event: kv_pb2.Event) -> rpc_pb2.RequestOp:
        return self._put(event.kv) if event.type == kv_pb2.Event.PUT else self._delete(event.kv.key)

    def _delete(self, key: bytes) -> rpc_pb2.RequestOp:
        return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=self._rename(key)))

    def _put(self, kv: kv_pb2.KeyValue) -> rpc_pb2.RequestOp:
        lease = self._leases.there(kv.lease) if self._leases is not None and kv.lease else 0
        return rpc_pb2.RequestOp(
            request_put=rpc_pb2.PutRequest(key=self._rename(kv.key), value=kv.value, lease=lease))

    def _living(self, kvs: Iterable[kv_pb2.KeyValue]) -> list[kv_pb2.KeyValue]:
        """Without those whose leases have ended meanwhile: they would stay for ever."""
        if self._leases is None:
            return list(kvs)
        ended = {lease for lease in {kv.lease for kv in kvs} if lease and not self._leases.there(lease)}
        return [kv for kv in kvs if kv.lease not in ended]

    def _apply(self, changes: Iterable[tuple[bytes, rpc_pb2.RequestOp]]) -> None:
        """In transactions as large as allowed. With each its key at the source."""
        some: list[tuple[bytes, rpc_pb2.RequestOp]] = []
        size = 0
        for key, op in changes:
            if some and (len(some) == self._max_ops or size + op.ByteSize() > _TXN_BYTES):
                self._send(some)
                some, size = [], 0
            some.append((key, op))
            size += op.ByteSize()
        if some:
            self._send(some)

    def _send(self, changes: list[tuple[bytes, rpc_pb2.RequestOp]]) -> None:
        while not self._is_done(changes):
            assert self._leases is not None
            leases = {op.request_put.lease for _, op in changes} - {0}
            there = {lease for lease in leases if self._leases.again(lease)} | {0}
            # where one is gone at the source, too, its keys' deletion follows
            changes = [(key, op) for key, op in changes if op.request_put.lease in there]
            time.sleep(_AGAIN_S)  # a lease whose end takes a while exists for grants and is none for puts

    def _is_done(self, changes: list[tuple[bytes, rpc_pb2.RequestOp]]) -> bool:
        """One transaction. Repeated, it has the same result, unless an endpoint does it behind later ones.
        False: the target lacks a lease. RequestError."""
        request = rpc_pb2.TxnRequest(success=[op for _, op in changes])
        try:
            self._target.unary("KV/Txn", request, rpc_pb2.TxnResponse, None, True)
        except RequestError as error:
            if self._leases is None or str(error) != _NO_LEASE:
                raise
            return False
        finally:
            for endpoint in self._target.unanswered:
                self.unsure.append(endpoint)
                self._target.begin(self._settle(endpoint, [key for key, _ in changes]))
            self._target.unanswered.clear()
        return True

    async def _settle(self, endpoint: str, keys: list[bytes]) -> None:
        """Have keys copied once more when an endpoint has either done its part, or never will. It may stand
        still for long, and bring old values back then."""
        await asyncio.sleep(_LOST_S)
        await self._target.answers(endpoint)
        await asyncio.sleep(_LATEST_S)
        self._late.append(keys)
        self.unsure.remove(endpoint)


class Leases:
    """Leases of the source, granted at the target with the same IDs, and kept alive there."""

    def __init__(self, source: Client, target: Client) -> None:
        self._source, self._target = source, target
        self._there: set[int] = set()  # granted and renewed
        self.ended: deque[int] = deque()  # at the target, with their keys
        # as long as this program runs and both have it: also behind a lease's time to live, after which the
        # source still has it, and perhaps the target
        self._renewing = target.renewing(self._gone)
        target.begin(self._renewing.run())
        target.begin(self._forget())

    @property
    def granted(self) -> int:
        """How many there are at the target."""
        return len(self._there)

    def there(self, lease: int, *, lost: bool = False) -> int:
        """The lease at the target; 0: it is gone at the source, which deletes its keys. ``lost``: a grant
        means that it had ended."""
        if lease not in self._there:
            found = self._source.unary(_ASKED, rpc_pb2.LeaseTimeToLiveRequest(ID=lease), _TOLD, None, True)
            if found.TTL < 0:
                return 0
            try:
                grant = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=found.grantedTTL)
                self._target.unary("Lease/LeaseGrant", grant, rpc_pb2.LeaseGrantResponse, None, True)
            except RequestError as error:
                if "already exists" not in str(error):
                    raise
                lost = lost and bool(self._target.unanswered)  # repeated, it may be this one
            if lost:
                self.ended.append(lease)
            self._there.add(lease)
            self._target.begin(self._renewing.add(lease))
        return lease

    def keys(self, lease: int) -> list[bytes]:
        """Those that it has at the source, if it is there."""
        asked = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
        return list(self._source.unary(_ASKED, asked, _TOLD, None, True).keys)

    def again(self, lease: int) -> int:
        """As :meth:`there`, where the target may have it no more."""
        self._there.discard(lease)
        return self.there(lease, lost=True)

    def _gone(self, lease: int) -> None:
        """The target has it no more; the next key that has it grants it again."""
        _say(f"lease {lease:016x} has ended here: keys that it has at the source are copied again")
        self._there.discard(lease)
        self.ended.append(lease)

    async def _forget(self) -> None:
        """Renew no lease that is gone at the source: leases come and go there."""
        while True:
            await asyncio.sleep(_FORGET_EVERY_S)
            with suppress(MusterError):  # it is tried again
                await self._forget_gone()

    async def _forget_gone(self) -> None:
        before = self._there.copy()
        request, response = rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse
        listed = await wrap_future(self._source.start("Lease/LeaseLeases", request, response, _LIMIT_S))
        for lease in before - {one.ID for one in listed.leases}:  # that endpoint may be behind
            asked = rpc_pb2.LeaseTimeToLiveRequest(ID=lease)
            if (await wrap_future(self._source.start(_ASKED, asked, _TOLD, _LIMIT_S))).TTL < 0:
                self._there.discard(lease)
                self._renewing.remove(lease)


def _span(prefix: str) -> tuple[bytes, bytes]:
    key = prefix.encode(errors="surrogateescape")
    return (key, prefix_end(key)) if key else _EVERYTHING


def _of_no_cluster(config: Config) -> Config:
    """The times and sizes of the global flags. Their credentials are not for another cluster, and their other
    files say nothing of it."""
    return replace(
        config, endpoints=(), insecure_transport=True, cert="", key="", cacert="", user="", password="",
        token="", skip_verify=False, server_name="")


def make_mirror(invocation: Invocation) -> None:
    """Until it fails or is interrupted."""
    flags = invocation.flags
    if len(invocation.args) != 1:
        raise Exit(128, "make-mirror takes one destination argument")
    prefix, renamed = flags.string("prefix"), flags.string("dest-prefix")
    if renamed and flags.switch("no-dest-prefix"):
        raise Exit(128, "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
    user, password = credentials(
        flags.string("dest-user"), flags.string("dest-password"), "Destination Password: ")
    s = session(invocation)
    target = replace(
        _of_no_cluster(s.config), endpoints=(invocation.args[0],), cert=flags.string("dest-cert"),
        key=flags.string("dest-key"), cacert=flags.string("dest-cacert"),
        insecure_transport=flags.switch("dest-insecure-transport"), user=user, password=password)
    old = prefix.encode(errors="surrogateescape")
    new = renamed.encode(errors="surrogateescape") if renamed or flags.switch("no-dest-prefix") else old
    copier = Copier(s.client(), Client(target, target.endpoints), _span(prefix), flags.number("max-txn-ops"),
                    lambda key: key.replace(old, new, 1))
    threading.Thread(target=_print_totals, args=(copier,), daemon=True).start()
    with failing_with():
        if flags.number("rev") > 1:  # as etcdctl: the others mean all
            copier.revision = flags.number("rev") - 1
        else:
            copier.base()
        copier.follow()


def _print_totals(copier: Copier) -> None:
    while True:
        time.sleep(_MIRROR_TELLS_S)
        print(copier.copied, flush=True)


def import_(invocation: Invocation) -> None:
    """Keys and leases; with ``--follow`` until interrupted."""
    flags = invocation.flags
    if invocation.args or not flags.strings("from-etcd"):
        raise Exit(128, "import needs --from-etcd and takes no arguments")
    if flags.number("since") and not flags.switch("follow"):
        raise Exit(128, "--since needs --follow")
    if flags.number("since") < 0:
        raise Exit(128, "--since must not be negative")
    s = session(invocation)
    user, _, password = flags.string("from-user").partition(":")
    cacert, cert, key = (flags.string(f"from-{name}") for name in ("cacert", "cert", "key"))
    origin = replace(
        _of_no_cluster(s.config), endpoints=tuple(flags.strings("from-etcd")), cert=cert, key=key,
        cacert=cacert, insecure_transport=not (cacert or cert or key), user=user, password=password)
    source, target = Client(origin, origin.endpoints), s.client()
    leases = Leases(source, target)
    copier = Copier(source, target, _span(flags.string("prefix")), flags.number("max-txn-ops"),
                    lambda key: key, leases)
    copier.on_progress = _told_now_and_then(copier, leases)
    _say("this cluster assigns new revisions; to keep etcd's, restore a snapshot instead")
    with failing_with():
        try:
            _copy(copier, leases, flags.number("since"), follow=flags.switch("follow"))
        except RequestError:
            if copier.revision:
                _say(f"to go on, add --follow --since {copier.revision + 1}")
            raise
        finally:
            _tell_unanswered(copier)


def _copy(copier: Copier, leases: Leases, since: int, *, follow: bool) -> None:
    copier.base(since)
    if not follow:
        copier.settle()
    _say(f"copied {copier.copied} keys and {leases.granted} leases of revision {copier.revision}")
    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end(copier))
        copier.follow()


def _end(copier: Copier) -> None:
    """End the program, wherever it waits."""
    _tell_unanswered(copier)
    if not copier.is_whole:
        _say(f"ended: keys are missing; to go on, add --follow --since {copier.revision + 1}")
        os._exit(1)
    _say(f"ended: all is copied up to revision {copier.revision}")
    os._exit(0)


def _tell_unanswered(copier: Copier) -> None:
    for endpoint in copier.unanswered:
        _say(f"{endpoint} left changes unanswered, and may still do them: compare the keys once it is back")


def _told_now_and_then(copier: Copier, leases: Leases) -> Callable[[], None]:
    told_at = time.monotonic()

    def tell() -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _IMPORT_TELLS_S:
            told_at = time.monotonic()
            _say(f"copied {copier.copied} keys and changes, {leases.granted} leases, "
                 f"revision {copier.revision}")

    return tell


def _say(text: str) -> None:
    print(f"import: {text}", file=sys.stderr, flush=True)
