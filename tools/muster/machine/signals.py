"""Signals that end no process of muster, as they end no program in Go."""

from __future__ import annotations

import signal

IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM)
