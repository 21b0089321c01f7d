"""Which signals end ``lock`` and ``elect`` while they tidy up, and what they say of a refused lease."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import Mock

import grpc
import pytest

from tests.unit.library.scripted import scripted
from tools.musterctl import concurrency
from tools.musterctl.client import Client
from tools.musterctl.concurrency import Interrupted, Session, Signals

TIDY = "tidy"


@pytest.mark.parametrize(("steps", "ends"), [
    ((5.0, TIDY, 5.1), None),  # as ``timeout`` sends it
    ((5.0, TIDY, 5.1, 6.2), 6.2),
    ((5.0, TIDY, 5.4, 5.8, 6.2), 6.2),  # one that holds the keys down
    ((TIDY, 5.0), 5.0),  # the command has ended by itself
    ((1.0, 5.0, TIDY, 5.1), None),  # the command went on after the first
])  # fmt: skip
def test_another_signal_ends_it(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[float | str, ...], ends: float | None
) -> None:
    now = 0.0
    ended: list[float] = []
    monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(concurrency, "signal", SimpleNamespace(
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=lambda *_: None,
        set_wakeup_fd=lambda *_, **__: None))  # fmt: skip
    monkeypatch.setattr(concurrency, "ending", SimpleNamespace(by=lambda _: ended.append(now)))
    signals = Signals()
    for step in steps:
        if isinstance(step, str):
            signals.tidy()
        else:
            now = step
            signals._take(signal.SIGINT, None)
    assert ended == ([] if ends is None else [ends])


@pytest.mark.parametrize("words", [["elect", "-l", "e"], ["elect", "e", "v"], ["lock", "e"]])
def test_it_is_told_why_there_is_no_lease(words: list[str]) -> None:
    text = "etcdserver: user name is empty"

    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

    with scripted({"Lease/LeaseGrant": refuse}) as address:
        line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, *words]
        # a process of its own: it takes the signals
        ended = subprocess.run(line, timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Error: {text}\n")


@pytest.mark.parametrize("connected", [False, True])
def test_a_lease_is_revoked_only_where_it_may_have_been_asked_for(connected: bool) -> None:
    """Without any endpoint an interrupt ends it at once; else the grant may be on its way."""
    asked: list[str] = []

    def unary(method: str, *_: object, **__: object) -> None:
        asked.append(method)

    def interrupted(*_: object) -> NoReturn:
        raise Interrupted

    client = Mock(spec=Client, unary=unary, run=interrupted)
    if not connected:
        client.library = interrupted  # which waits for an endpoint
    signals = Mock(spec=Signals, run=lambda step: step())
    with pytest.raises(Interrupted), Session(client, 10, signals):
        pass
    assert asked == (["Lease/LeaseRevoke"] if connected else [])
