"""``check datascale``: a set number of puts, and how much memory they cost the first endpoint's server."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import urllib.request
from dataclasses import dataclass

import grpc

from cluster.pb import rpc_pb2
from tools.musterctl.client import Client, RequestError, failing_with, request_error, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.data.check import ALIASES, clean_up, free_prefix, progress
from tools.musterctl.printing.gotext import raw

_KEY_BYTES = _VALUE_BYTES = 512
_PUT_TIMEOUT_S = 30.0
_METRICS_TIMEOUT_S = 10.0
_MEMORY = b"process_resident_memory_bytes "


@dataclass(slots=True, frozen=True)
class Load:
    """A workload: so many puts over so many clients."""

    puts: int
    clients: int


LOADS = {
    "s": Load(10_000, 50),
    "m": Load(100_000, 200),
    "l": Load(1_000_000, 500),
    "xl": Load(3_000_000, 1000),
}


def datascale(invocation: Invocation) -> None:
    """``check datascale``."""
    wanted = invocation.flags.string("load")
    load = LOADS.get(ALIASES.get(wanted, wanted))
    if load is None:
        raise Exit(4, f"unknown load option {wanted}")
    s = session(invocation)
    client, prefix = s.client(), invocation.flags.string("prefix")
    span = free_prefix(client, prefix)
    before = _memory_bytes(s.config.endpoints[0])
    if not before:
        print("FAIL: Could not read process_resident_memory_bytes before the put operations.")
        raise Exit(1)
    print(
        f"Start data scale check for work load [{load.puts} key-value pairs, "
        f"{_KEY_BYTES + _VALUE_BYTES} bytes per key-value, "
        f"{load.clients} concurrent clients]."
    )
    errors = drive(client, load, raw(prefix))
    after = _memory_bytes(s.config.endpoints[0])
    with failing_with():
        clean_up(invocation, s, client, span)
    if not after:
        print("FAIL: Could not read process_resident_memory_bytes after the put operations.")
        raise Exit(1)
    if errors:
        print("FAIL: too many errors")
        for error, count in errors.items():
            print(f"FAIL: ERROR({error}) -> {count}")
        raise Exit(1)
    print(f"PASS: Approximate system memory used : {(after - before) / (1 << 20):.2f} MB.")


def drive(client: Client, load: Load, prefix: bytes) -> dict[str, int]:
    """Send the puts, at most one per client at a time; errors by what they say."""
    errors: dict[str, int] = {}
    lock, idle = threading.Lock(), threading.Semaphore(load.clients)
    value = random.randbytes(_VALUE_BYTES)

    def failed(error: str) -> None:
        with lock:
            errors[error] = errors.get(error, 0) + 1

    def done(call: grpc.Future) -> None:
        if (error := call.exception()) is not None:
            failed(str(request_error(error)) if isinstance(error, grpc.RpcError) else str(error))
        idle.release()

    for sent in range(load.puts):
        idle.acquire()
        if sent % max(load.puts // 100, 1) == 0:
            progress(sent, load.puts)
        key = prefix + random.randbytes(_KEY_BYTES)
        try:
            put = rpc_pb2.PutRequest(key=key, value=value)
            client.start("KV/Put", put, rpc_pb2.PutResponse, _PUT_TIMEOUT_S).add_done_callback(done)
        except RequestError as error:
            failed(str(error))
            idle.release()
    for _ in range(load.clients):  # all are back
        idle.acquire()
    progress(load.puts, load.puts)
    with contextlib.suppress(OSError):
        print(file=sys.stdout, flush=True)
    return errors


def _memory_bytes(endpoint: str) -> float:
    """What the server says of its memory; 0: it does not."""
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/metrics", timeout=_METRICS_TIMEOUT_S) as answer:
            lines = answer.read().splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(_MEMORY)), 0))
    except (OSError, ValueError):
        return 0.0
