"""The load of a large Kubernetes cluster's API servers, each kind of request at its own rate.

The requests are those of ``k8s.io/apiserver`` (``pkg/storage/etcd3``). A transaction compares an object's
revision and puts it, or else gets it. A list is one range, or pages of it at one revision. Each API server
watches each kind from its prefix, with previous values, and requests progress. Each kind of request is an
open loop: latencies count from the intended sending.

Three client processes share the work (``Spec.part``): an answer to a list keeps its process busy for tens of
milliseconds. An object opens as Kubernetes' do (``k8s``, a zero byte), then has the intended time of its
update, for the latencies of watches.

One update in a hundred begins from a past revision; ``conflict`` is the time of such an attempt. ``page`` is
one page of a list, ``event`` the time from an update's intended sending to its event at a watch. Events lost,
out of order, or behind a progress answer count as errors (etcd before 3.5.8 has some of the last).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns

from bench.client import Client, RpcError, Status
from bench.client.connection import Callback
from bench.load.loops import Loop
from bench.load.spec import Spec
from bench.load.traffic.kubernetes_reads import LEASES, PODS, SLOTS, STAMP, Kind, List, Watches
from bench.load.traffic.stepwise import Stepwise
from bench.load.traffic.streams import KEEP_ALIVE, KeepAlives, prefix_end
from bench.load.traffic.workloads import PUT, RANGE, TXN
from cluster.pb import rpc_pb2 as pb

_OPENING = b"k8s\0"
_POD_BYTES = (2048, 4096)
_LEASE_BYTES = (400, 500)
_NAMESPACES = 50
_OUTDATED_PERCENT = 1  # of the updates begin from a revision that is past, as in an API server's cache
_AT_ONCE = 100
_SLOTS = {"renewal": 200, "keep-alive": 100, "status update": 100}


def rates(spec: Spec) -> dict[str, float]:
    """Requests a second of each kind in this part."""
    found = {
        "writes": {"renewal": spec.renewals_per_s, "keep-alive": spec.keep_alives_per_s,
                   "status update": spec.statuses_per_s},
        "lists": {"list in pages": spec.lists_per_s, "whole list": spec.lists_per_s},
        "watches": {"progress": spec.progress_per_s},
    }
    return {kind: rate * spec.scale for part, kinds in found.items() if spec.part in ("", part)
            for kind, rate in kinds.items() if rate}


def _later_s(spec: Spec) -> float:
    """When whole lists begin: halfway between two lists in pages."""
    return min(0.5 / spec.rate_per_s, spec.duration_s / 2)


class Mix:
    """One process's part: several loops, which its worker runs as one."""

    def __init__(self, spec: Spec, client: Client) -> None:
        self.spec = spec
        self.loops: dict[str, Loop] = {}
        self.extra_us: dict[str, list[int]] = {}
        self.started_ns = 0
        self.ended_ns = 0
        self._client = client
        self._writes = _Writes(spec, client, self.extra_us)
        self._watches = Watches(spec, client, self.extra_us)

    async def create(self) -> None:
        """Make objects, leases or watches. RuntimeError or RpcError if that fails."""
        kinds: list[Kind] = []
        if self.spec.part == "writes":
            kinds = await self._writes.create()
        elif self.spec.part == "watches":
            kinds = await self._watches.create()
        else:
            pages = self.extra_us["page"] = []
            kinds = [(kind, [List(self.spec, self._client, i, page, noted) for i in range(SLOTS)], "")
                     for kind, page, noted in (("list in pages", self.spec.page, pages),
                                               ("whole list", 0, []))]
        asked = rates(self.spec)
        for kind, callers, path in kinds:
            if kind in asked:
                self.extra_us[kind] = []
                spec = replace(self.spec, clients=len(callers), rate_per_s=asked[kind])
                if kind == "whole list":
                    spec = replace(spec, duration_s=spec.duration_s - _later_s(spec))
                self.loops[kind] = Loop(spec, callers, path, lambda now: now.to_bytes(8, "big"))

    @property
    def committed(self) -> int:
        """Writes that watches get an event of."""
        return self._writes.committed

    @property
    def errors(self) -> Counter[str]:
        """By kind of request."""
        found = Counter(self._watches.errors)
        for kind, loop in self.loops.items():
            found.update({f"{kind}: {what}": count for what, count in loop.errors.items()})
        return found

    @property
    def samples_us(self) -> list[int]:
        """The latencies since the last look, also noted by kind."""
        taken: list[int] = []
        for kind, loop in self.loops.items():
            taken += loop.samples_us
            self.extra_us[kind] += loop.samples_us
            loop.samples_us.clear()
        return taken

    @property
    def took_s(self) -> dict[str, float]:
        """The seconds of each kind: a slow list delays no other kind."""
        return {kind: max(loop.spec.duration_s, (loop.answered_ns - loop.started_ns) / 1e9)
                for kind, loop in self.loops.items()}

    async def run(self) -> None:
        self.started_ns = self.ended_ns = perf_counter_ns()
        await asyncio.gather(*(self._run(kind, loop) for kind, loop in self.loops.items()))
        self.ended_ns = max((loop.ended_ns for loop in self.loops.values()), default=self.started_ns)

    async def _run(self, kind: str, loop: Loop) -> None:
        if kind == "whole list":
            await asyncio.sleep(self.spec.duration_s - loop.spec.duration_s)
        await loop.run()

    def stop(self, *, drain: bool = False) -> None:
        for loop in self.loops.values():
            loop.stop(drain=drain)

    async def wait_for(self, writes: int) -> None:
        """Wait for the events of the writes; gives up when none came for a time limit."""
        if self.spec.part == "watches":
            await self._watches.wait_for(writes)

    async def close(self) -> None:
        """End the streams and revoke the leases."""
        await self._writes.close()
        self._watches.close()


class _Objects:
    """The objects of a kind: their keys, and the last known revision of each."""

    def __init__(self, prefix: bytes, keys: list[bytes], sizes: tuple[int, int], seed: int) -> None:
        rng = random.Random(seed)
        self.prefix = prefix
        self.keys = keys
        self.revisions = [0] * len(keys)
        self._sizes = [rng.randint(*sizes) - STAMP.stop for _ in keys]
        self._noise = rng.randbytes(1 << 18)

    def value(self, place: int, stamp: bytes) -> bytes:
        """An object with that time, in bytes that do not compress."""
        begin = place * 997 % ((1 << 18) - (1 << 13))
        return _OPENING + stamp + self._noise[begin : begin + self._sizes[place]]

    async def create(self, client: Client, timeout_s: float) -> None:
        """Learn the revisions of existing objects, and put the others."""
        listed = pb.RangeRequest(key=self.prefix, range_end=prefix_end(self.prefix), keys_only=True)
        there = await client.unary(RANGE, listed, pb.RangeResponse, timeout_s=timeout_s)
        known = {kv.key: kv.mod_revision for kv in there.kvs}
        self.revisions = [known.get(key, 0) for key in self.keys]
        missing = [place for place, revision in enumerate(self.revisions) if not revision]

        async def put(place: int) -> None:
            request = pb.PutRequest(key=self.keys[place], value=self.value(place, bytes(8)))
            answer = await client.unary(PUT, request, pb.PutResponse, connection=place, timeout_s=timeout_s)
            self.revisions[place] = answer.header.revision

        for first in range(0, len(missing), _AT_ONCE):
            await asyncio.gather(*map(put, missing[first : first + _AT_ONCE]))


class _Writes:
    """Renewals of nodes' leases and updates of pods' status, by transactions; keep-alives of etcd's own."""

    def __init__(self, spec: Spec, client: Client, extra_us: dict[str, list[int]]) -> None:
        self.committed = 0
        self.conflicts_us: list[int] = []
        self._spec = spec
        self._client = client
        self._extra_us = extra_us
        self._keep_alives: KeepAlives | None = None

    async def create(self) -> list[Kind]:
        spec, client = self._spec, self._client
        pods = _Objects(PODS, [b"%bns-%02d/app-%06d-6b8d4f9c7d-k2m8q" % (PODS, i % _NAMESPACES, i)
                               for i in range(spec.pods)], _POD_BYTES, spec.seed)
        nodes = _Objects(LEASES, [b"%bkube-node-lease/node-%05d" % (LEASES, i) for i in range(spec.nodes)],
                         _LEASE_BYTES, spec.seed)
        for objects in (pods, nodes):
            await objects.create(client, spec.timeout_s)
        self._extra_us["conflict"] = self.conflicts_us
        turns = itertools.cycle(range(spec.nodes))
        draw = random.Random(spec.seed)
        sources: tuple[tuple[str, _Objects, Callable[[], int]], ...] = (
            ("renewal", nodes, lambda: next(turns)),
            ("status update", pods, lambda: draw.randrange(spec.pods)))
        made: list[Kind] = [
            (kind, [_Update(self, client, i, objects, choose, draw) for i in range(_SLOTS[kind])], "")
            for kind, objects, choose in sources]
        if "keep-alive" in rates(spec):
            self._keep_alives = KeepAlives(replace(spec, clients=_SLOTS["keep-alive"]), client)
            await self._keep_alives.create()
            made.append(("keep-alive", self._keep_alives.callers, KEEP_ALIVE))
        return made

    async def close(self) -> None:
        if self._keep_alives is not None:
            await self._keep_alives.close()


class _Update(Stepwise):
    """One client of an API server: updates objects from their last known revision, again after a conflict."""

    def __init__(self, owner: _Writes, client: Client, place: int, objects: _Objects,
                 choose: Callable[[], int], draw: random.Random) -> None:
        super().__init__(client, place)
        self._owner = owner
        self._objects = objects
        self._choose = choose
        self._draw = draw

    def call(self, path: str, stamp: bytes, callback: Callback) -> int:
        """Update one object; ``stamp`` is the intended time."""
        place = self._choose()
        outdated = self._draw.random() * 100 < _OUTDATED_PERCENT
        self._try(place, self._objects.revisions[place] - outdated, stamp, callback, self.begin())
        return 1

    def _try(self, place: int, revision: int, stamp: bytes, callback: Callback, turn: int) -> None:
        objects, owner = self._objects, self._owner
        sent = perf_counter_ns()

        def then(body: bytes) -> None:
            answer = pb.TxnResponse.FromString(body)
            if answer.succeeded:
                owner.committed += 1
                objects.revisions[place] = max(objects.revisions[place], answer.header.revision)
                callback(None, body)
                return
            owner.conflicts_us.append((perf_counter_ns() - sent) // 1000)
            found = answer.responses[0].response_range.kvs
            if not found:
                callback(RpcError(Status.NOT_FOUND, "an object is gone"), b"")
                return
            objects.revisions[place] = found[0].mod_revision
            self._try(place, found[0].mod_revision, stamp, callback, turn)

        body = guarded(objects.keys[place], revision, objects.value(place, stamp))
        self.step(turn, TXN, body, callback, then)


def guarded(key: bytes, revision: int, value: bytes) -> bytes:
    """The transaction that updates an object at this revision, and reads one at another."""
    return pb.TxnRequest(
        compare=[pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    ).SerializeToString()
