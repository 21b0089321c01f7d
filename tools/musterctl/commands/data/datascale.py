"""``check datascale``: a set number of puts, and their memory at the first endpoint's server."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from cluster.gotext import raw
from tools.client.channels import Config
from tools.musterctl.client import Client, failing_with, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.data.check import Puts, chosen, delete, free_prefix, progress, tidy
from tools.musterctl.pages import page

_KEY_BYTES = _VALUE_BYTES = 512
_PUT_TIMEOUT_S = 30.0
_PATIENCE = 3  # such limits without an answer before it gives up
_METRICS_TIMEOUT_S = 10.0
_MEMORY = b"process_resident_memory_bytes "


@dataclass(slots=True, frozen=True)
class Load:
    """So many puts over so many clients."""

    puts: int
    clients: int


LOADS = {
    "s": Load(10_000, 50),
    "m": Load(100_000, 200),
    "l": Load(1_000_000, 500),
    "xl": Load(3_000_000, 1000),
}


def datascale(invocation: Invocation) -> None:
    load = chosen(invocation, LOADS)
    s = session(invocation)
    client, prefix = s.client(), invocation.flags.string("prefix")
    span = free_prefix(client, prefix)
    before = _memory_bytes(s.config)
    if not before:
        print("FAIL: Could not read process_resident_memory_bytes before the put operations.")
        raise Exit(1)
    print(
        f"Start data scale check for work load [{load.puts} key-value pairs, {_KEY_BYTES + _VALUE_BYTES} "
        f"bytes per key-value, {load.clients} concurrent clients].")
    errors = drive(client, load, raw(prefix))
    if errors:
        print("FAIL: too many errors")
        for error, count in errors.items():
            print(f"FAIL: ERROR({error}) -> {count}")
    after = _memory_bytes(s.config)
    with failing_with():
        tidy(invocation, s, client, delete(client, span))
    if not after:
        print("FAIL: Could not read process_resident_memory_bytes after the put operations.")
    if errors or not after:
        raise Exit(1)
    print(f"PASS: Approximate system memory used : {(after - before) / (1 << 20):.2f} MB.")


def drive(client: Client, load: Load, prefix: bytes) -> dict[str, int]:
    """Send the puts; the errors, counted by text. It gives up where nothing is answered any more."""
    answered = time.monotonic()

    def took(_: float) -> None:
        nonlocal answered
        answered = time.monotonic()

    puts, sent = Puts(client, load.clients, _PUT_TIMEOUT_S, took), 0
    value = random.randbytes(_VALUE_BYTES)
    while sent < load.puts and time.monotonic() - answered < _PATIENCE * _PUT_TIMEOUT_S:
        puts.wait()
        if sent % max(load.puts // 100, 1) == 0:
            progress(sent, load.puts)
        puts.put(prefix + random.randbytes(_KEY_BYTES), value)
        sent += 1
    puts.settle()
    puts.end(sent, load.puts)
    if sent < load.puts:
        puts.errors[f"gave up: no put succeeded for {_PATIENCE * _PUT_TIMEOUT_S:g} s"] = 1
    return puts.errors


def _memory_bytes(config: Config) -> float:
    """The server's own figure; 0: none."""
    try:
        lines = page(config, config.endpoints[0], "/metrics", _METRICS_TIMEOUT_S).splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(_MEMORY)), 0))
    except (OSError, ValueError):
        return 0.0
