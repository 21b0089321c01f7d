"""``check perf``: a minute of puts at a set rate, judged by throughput, slowest request and deviation."""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from muster_client.errors import MusterError
from muster_client.pb import rpc_pb2

from cluster.gotext import prefix_end, quote, raw
from tools.musterctl.client import Client, RequestError, Session, failing_with, failure_of, session
from tools.musterctl.command import Exit, Invocation

T = TypeVar("T")
DURATION_S = 60
_KEY_BYTES = 256
_VALUE_BYTES = 1024
_PUT_TIMEOUT_S = 10.0  # etcdctl has none, and waits for ever for a lost server
_CLEANUP_TIMEOUT_S = 30.0
_UPKEEP_TIMEOUT_S = 600.0
_SLOWEST_S = 0.5
_DEVIATION_S = 0.1
_ENOUGH = 0.9  # of the load's rate


@dataclass(slots=True, frozen=True)
class Load:
    """Puts per second over so many clients."""

    puts_per_s: int
    clients: int


_LOADS = {"s": Load(150, 50), "m": Load(1000, 200), "l": Load(8000, 500), "xl": Load(15000, 1000)}
_ALIASES = {"small": "s", "medium": "m", "large": "l", "xLarge": "xl"}


@dataclass(slots=True)
class Measured:
    """What the requests took."""

    latencies_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0


def verdict(load: Load, measured: Measured) -> tuple[list[str], bool]:
    """The lines to print and whether the cluster passes."""
    lines, passed = [], True
    if measured.errors:
        lines.append("FAIL: too many errors")
        lines += [f"FAIL: ERROR({error}) -> {count}" for error, count in measured.errors.items()]
        passed = False
    rate = len(measured.latencies_s) / measured.elapsed_s if measured.elapsed_s else 0.0
    if rate / load.puts_per_s <= _ENOUGH:
        lines.append(f"FAIL: Throughput too low: {int(rate) + 1} writes/s")
        passed = False
    else:
        lines.append(f"PASS: Throughput is {int(rate) + 1} writes/s")
    slowest = max(measured.latencies_s, default=0.0)
    if slowest > _SLOWEST_S:
        lines.append(f"Slowest request took too long: {slowest:f}s")
        passed = False
    else:
        lines.append(f"PASS: Slowest request took {slowest:f}s")
    deviation = statistics.pstdev(measured.latencies_s) if measured.latencies_s else 0.0
    if deviation > _DEVIATION_S:
        lines.append(f"Stddev too high: {deviation:f}s")
        passed = False
    else:
        lines.append(f"PASS: Stddev is {deviation:f}s")
    lines.append("PASS" if passed else "FAIL")
    return lines, passed


def perf(invocation: Invocation) -> None:
    """An interrupt ends the puts; what was measured until then is judged."""
    load = chosen(invocation, _LOADS)
    s = session(invocation)
    client, prefix = s.client(), invocation.flags.string("prefix")
    span = free_prefix(client, prefix)
    stopped = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    measured = drive(client, load, raw(prefix), DURATION_S, _PUT_TIMEOUT_S, stopped)
    signal.signal(signal.SIGINT, before or signal.SIG_DFL)  # another one ends the process
    try:
        revision = delete(client, span)
    except RequestError as error:
        print(f"FAIL: Cleanup failed during key deletion: ERROR({error})")
    else:
        with failing_with():
            tidy(invocation, s, client, revision)
    lines, passed = verdict(load, measured)
    print("\n".join(lines))
    if not passed:
        raise Exit(1)


def chosen(invocation: Invocation, loads: dict[str, T]) -> T:
    """The load that --load names, by one of its names; Exit if there is none."""
    wanted = invocation.flags.string("load")
    load = loads.get(_ALIASES.get(wanted, wanted))
    if load is None:
        raise Exit(4, f"unknown load option {wanted}")
    return load


def free_prefix(client: Client, prefix: str) -> tuple[bytes, bytes]:
    """The range of the keys with this prefix; Exit if there is one."""
    stem = raw(prefix)
    key, end = (stem, prefix_end(stem)) if stem else (b"\0", b"\0")
    with failing_with():
        request = rpc_pb2.RangeRequest(key=key, range_end=end, limit=1)
        if client.unary("KV/Range", request, rpc_pb2.RangeResponse, DURATION_S, True).kvs:
            advice = f"Delete with 'musterctl del --prefix {prefix}' first"
            raise Exit(3, f"prefix {quote(stem)} has keys. {advice}")
    return key, end


def delete(client: Client, span: tuple[bytes, bytes]) -> int:
    """Delete the puts; the revision. RequestError."""
    deletion = rpc_pb2.DeleteRangeRequest(key=span[0], range_end=span[1])
    deleted = client.unary("KV/DeleteRange", deletion, rpc_pb2.DeleteRangeResponse, _CLEANUP_TIMEOUT_S)
    return deleted.header.revision


def tidy(invocation: Invocation, s: Session, client: Client, revision: int) -> None:
    """Compact and defragment, if the flags say so. RequestError."""
    if invocation.flags.switch("auto-compact"):
        print(f"Compacting with revision {revision}")
        compact = rpc_pb2.CompactionRequest(revision=revision, physical=True)
        client.unary("KV/Compact", compact, rpc_pb2.CompactionResponse, _UPKEEP_TIMEOUT_S)
        print(f"Compacted with revision {revision}")
    if invocation.flags.switch("auto-defrag"):
        for endpoint in s.config.endpoints:
            print(f'Defragmenting "{endpoint}"')
            request = rpc_pb2.DefragmentRequest()
            defragmented = rpc_pb2.DefragmentResponse
            s.client(endpoint).unary("Maintenance/Defragment", request, defragmented, _UPKEEP_TIMEOUT_S)
            print(f'Defragmented "{endpoint}"')


class Puts:
    """Puts under way, one per client at a time. ``took``: each success, in seconds, in another thread."""

    def __init__(
        self, client: Client, clients: int, timeout_s: float, took: Callable[[float], object] = bool
    ) -> None:
        self.errors: dict[str, int] = {}
        self._client = client
        self._clients = clients
        self._timeout_s = timeout_s
        self._took = took
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(clients)

    def wait(self, limit_s: float | None = None) -> bool:
        """For an idle client; whether there is one, for :meth:`put`."""
        return self._idle.acquire(timeout=limit_s)

    def put(self, key: bytes, value: bytes) -> None:
        began = time.monotonic()
        call = self._client.start(
            "KV/Put", rpc_pb2.PutRequest(key=key, value=value), rpc_pb2.PutResponse, self._timeout_s)
        call.add_done_callback(lambda call: self._done(call.exception(), began))

    def _done(self, error: BaseException | None, began: float) -> None:
        took = time.monotonic() - began
        with self._lock:
            if error is None:
                self._took(took)
            else:
                name = str(failure_of(error)) if isinstance(error, MusterError) else str(error)
                self.errors[name] = self.errors.get(name, 0) + 1
        self._idle.release()

    def settle(self) -> None:
        """Wait for all answers."""
        for _ in range(self._clients):
            self._idle.acquire()

    def end(self, done: int, total: int) -> None:
        """End the line of progress."""
        progress(done, total)
        with contextlib.suppress(OSError):
            print(file=sys.stdout, flush=True)


def drive(
    client: Client, load: Load, prefix: bytes, duration_s: float, put_timeout_s: float,
    stopped: threading.Event,
) -> Measured:
    """Send puts at the load's rate for ``duration_s``, or until it is stopped. It takes at most
    ``put_timeout_s`` longer."""
    measured = Measured()
    puts = Puts(client, load.clients, put_timeout_s, measured.latencies_s.append)
    value = bytes(_VALUE_BYTES)
    start = time.monotonic()
    sent, shown = 0, -1
    # a signal's handler stops it: to wait for that event in its thread could block both
    while not stopped.is_set() and (now := time.monotonic()) < start + duration_s:
        if int(now - start) != shown:
            shown = int(now - start)
            progress(shown, int(duration_s))
        due = start + sent / load.puts_per_s
        if due > now:
            time.sleep(min(due - now, 0.1))
            continue
        if not puts.wait(0.1):
            continue
        sent += 1
        puts.put(prefix + random.getrandbits(63).to_bytes(8, "little").ljust(_KEY_BYTES, b"\0"), value)
    puts.settle()
    measured.errors, measured.elapsed_s = puts.errors, time.monotonic() - start
    puts.end(int(duration_s), int(duration_s))
    return measured


def progress(done: int, total: int) -> None:
    """Show how far it is, on one line."""
    bar = ""
    if sys.stdout.isatty():
        filled = 40 * done // total
        bar = f" [{'o' * filled}{'m' if filled < 40 else ''}{' ' * (39 - filled)}]"
    sys.stdout.write(f"\r {done} / {total}{bar} {100 * done / total:7.2f}%")
    sys.stdout.flush()
