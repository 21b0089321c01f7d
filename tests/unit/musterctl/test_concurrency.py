"""Which signals end ``lock`` and ``elect`` while they tidy up."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from tools.musterctl import concurrency
from tools.musterctl.concurrency import Signals

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
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, SIG_DFL=signal.SIG_DFL, signal=lambda *_: None,
        set_wakeup_fd=lambda *_, **__: None, raise_signal=lambda _: ended.append(now)))  # fmt: skip
    signals = Signals()
    for step in steps:
        if isinstance(step, str):
            signals.tidy()
        else:
            now = step
            signals._take(signal.SIGINT, None)
    assert ended == ([] if ends is None else [ends])
