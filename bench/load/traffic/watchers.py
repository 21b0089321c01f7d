"""Watches and their delivery: every event counted at every watcher, and timed.

A watched value opens with the intended time of its put, of ``perf_counter_ns``, the system's monotonic clock:
latencies hold across the client processes of a machine.

Hot path: a million events a second are counted beside the servers, on the same CPUs. Messages that several
watchers of a stream get alike are read, checked and timed together (``bench.client.runs``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from time import perf_counter_ns

from muster_client.wire.http2.frames import PREFIX

from bench.client import Client, RpcError, Stream
from bench.client.connection import Connection
from bench.client.runs import Run, run_at
from bench.load.spec import STAMP_BYTES, Spec
from bench.load.traffic.streams import WATCH, Awaited, prefix_end
from bench.load.traffic.workloads import key_format
from cluster.pb import rpc_pb2 as pb

_RESPONSES_KEPT = 1_000
_OUT_OF_ORDER = "events out of order"


class _Put:
    """One event, as all watchers get it."""

    __slots__ = ("missing", "revision", "stamp_ns")

    def __init__(self, revision: int, stamp_ns: int, watchers: int) -> None:
        self.revision = revision
        self.stamp_ns = stamp_ns  # the intended time
        self.missing = watchers  # that have not had it


class _Response:
    """The events of a response."""

    __slots__ = ("from_revision", "puts", "tail", "to_revision")

    def __init__(self, tail: bytes, puts: list[_Put]) -> None:
        self.tail = tail  # as it lies in the message, from the events on
        self.puts = puts
        self.from_revision = puts[0].revision if puts else 0
        self.to_revision = puts[-1].revision if puts else 0


class Watchers(Awaited):
    """All watchers of one client process: ``streams`` streams with ``watchers_per_stream`` each.

    Every watcher has to see every put once and in order; with ``watched_keys`` the watchers are divided among
    that many keys.
    """

    def __init__(self, spec: Spec, client: Client) -> None:
        super().__init__(spec.timeout_s)
        self.spec = spec
        self.count = spec.streams * spec.watchers_per_stream
        self.per_put = self.count // (spec.watched_keys or 1)  # events of one put
        # delivery latencies; the worker takes and clears them
        self.samples_us: defaultdict[int, int] = defaultdict(int)
        self.created_us: list[int] = []
        self.errors: Counter[str] = Counter()
        self.received = 0
        self.last_event_ns = 0
        self.to_all_us: dict[int, int] = {}  # of each put's revision, until the last watcher here had it
        self._puts: dict[int, _Put] = {}  # by revision, those that some watchers have not had
        self.last = _Response(b"", [])  # the latest response
        self._read: dict[bytes, _Response] = {}  # and those before it, by their tails
        self._client = client
        self._streams: list[_WatchStream] = []

    async def create(self) -> None:
        """Create all watchers. RuntimeError if some are refused or take too long."""
        requests = self._requests()
        for i in range(self.spec.streams):
            connection = self._client.connections[i % len(self._client.connections)]
            self._streams.append(_WatchStream(self, connection, requests, self.spec.watchers_per_stream))
        if not await self.until(lambda: len(self.created_us) >= self.count or bool(self.errors)):
            raise RuntimeError(
                f"{len(self.created_us)} of {self.count} watchers created within the time limit")
        if self.errors:
            raise RuntimeError(f"watchers were not created: {dict(self.errors)}")

    async def wait_for(self, puts: int) -> None:
        """Wait for all events of ``puts`` puts; gives up when none came for a time limit."""
        expected = puts * self.per_put
        if not await self.until(lambda: self.received >= expected):
            self.errors["events not delivered"] += expected - self.received
        if self.received > expected:
            self.errors["events above those expected"] += self.received - expected

    def close(self) -> None:
        for stream in self._streams:
            stream.stream.cancel()

    def response(self, tail: bytes) -> _Response:
        """The events of a response; most watchers get the same."""
        found = self._read.get(tail)
        if found is None:
            found = self._read_events(tail)
        self.last = found
        return found

    def _read_events(self, tail: bytes) -> _Response:
        puts: list[_Put] = []
        for event in pb.WatchResponse.FromString(tail).events:
            kv = event.kv
            put = self._puts.get(kv.mod_revision)
            if put is None:
                stamp_ns = int.from_bytes(kv.value[:STAMP_BYTES], "big")
                put = self._puts[kv.mod_revision] = _Put(kv.mod_revision, stamp_ns, self.per_put)
            # the puts are single: a revision twice is an event twice
            if puts and put.revision <= puts[-1].revision:
                self.errors[_OUT_OF_ORDER] += 1
            puts.append(put)
        if len(self._read) >= _RESPONSES_KEPT:
            del self._read[next(iter(self._read))]
        found = self._read[tail] = _Response(tail, puts)
        return found

    def delivered(self, response: _Response, watchers: int, now: int) -> None:
        """Count a response for a number of watchers."""
        samples_us = self.samples_us
        for put in response.puts:
            latency_us = (now - put.stamp_ns) // 1000
            samples_us[latency_us] += watchers
            put.missing -= watchers
            if not put.missing:
                self._puts.pop(put.revision, None)
                self.to_all_us[put.revision] = latency_us
        self.received += watchers * len(response.puts)
        self.last_event_ns = now
        if not self._changed.is_set():
            self._changed.set()

    def _requests(self) -> list[bytes]:
        """The requests for the watchers of a stream, in turn."""
        spec = self.spec
        if spec.watched_keys:
            key = key_format(spec)
            return [pb.WatchRequest(create_request=pb.WatchCreateRequest(
                        key=key(number), prev_kv=spec.prev_kv, progress_notify=spec.progress_notify)
                    ).SerializeToString() for number in range(spec.watched_keys)]
        create = pb.WatchCreateRequest(prev_kv=spec.prev_kv, progress_notify=spec.progress_notify)
        if spec.watch_prefix:
            create.key = spec.watch_prefix.encode()
            create.range_end = prefix_end(create.key)
        elif spec.key_space > 1:
            key = key_format(spec)
            create.key, create.range_end = key(0), key(spec.key_space - 1) + b"\x00"
        else:
            create.key = key_format(spec)(0)
        return [pb.WatchRequest(create_request=create).SerializeToString()]


class _WatchStream:
    """One watch stream; checks that each of its watchers sees revisions only once and ascending."""

    def __init__(self, owner: Watchers, connection: Connection, requests: list[bytes], watchers: int) -> None:
        self._owner = owner
        self._last: dict[bytes, int] = {}  # watch id, as it lies in a response -> revision of its last event
        self._asked_ns = perf_counter_ns()
        self.stream: Stream = connection.stream(WATCH, self._message, self._end, self._runs)
        for i in range(watchers):
            self.stream.send(requests[i % len(requests)])

    def _runs(self, data: bytes, at: int, limit: int, lead: int) -> int:
        """Take alike messages at once (see :class:`bench.client.Stream`)."""
        now = perf_counter_ns()
        run = run_at(data, at, limit, lead, len(self._last))
        if run is None or not self._take(run, now):
            return at
        return run[2]

    def _message(self, body: bytes) -> None:
        """A message that came alone, or in pieces."""
        now = perf_counter_ns()
        run = run_at(PREFIX.pack(0, len(body)) + body, 0, PREFIX.size + len(body), PREFIX.size, 1)
        if run is None or not self._take(run, now):
            self._control(body, now)

    def _take(self, run: Run, now: int) -> bool:
        """False: not for watchers of this stream."""
        ids, tail, _ = run
        last, owner = self._last, self._owner
        try:
            seen = max(map(last.__getitem__, ids))
        except KeyError:
            return False
        response = owner.last if tail == owner.last.tail else owner.response(tail)  # most often the same
        fresh = dict.fromkeys(ids, response.to_revision)
        if seen >= response.from_revision or len(fresh) < len(ids):
            for name in ids:
                owner.errors[_OUT_OF_ORDER] += last[name] >= response.from_revision
                last[name] = response.to_revision
        last.update(fresh)
        owner.delivered(response, len(ids), now)
        return True

    def _control(self, body: bytes, now: int) -> None:
        """A response without events."""
        response = pb.WatchResponse.FromString(body)
        owner = self._owner
        if response.canceled:
            owner.errors[f"watch cancelled: {response.cancel_reason}"] += 1
        elif response.created:
            self._last[pb.WatchResponse(watch_id=response.watch_id).SerializeToString()] = 0
            owner.created_us.append((now - self._asked_ns) // 1000)
        elif response.events:
            owner.errors["events for nobody"] += len(response.events)
        owner.changed()

    def _end(self, error: RpcError | None) -> None:
        self._owner.errors[f"watch stream ended: {error or 'OK'}"] += 1
        self._owner.changed()
