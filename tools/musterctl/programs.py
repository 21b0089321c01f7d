"""Programs that commands run, and Go's words for how they end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from cluster.gotext import quote, raw

_SIGNALS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    6: "aborted",
    9: "killed",
    13: "broken pipe",
    15: "terminated",
}


def not_started(words: Sequence[str], error: OSError | ValueError) -> str:
    """Why ``subprocess`` could not start it. ValueError: it is given a zero octet."""
    name = words[0]
    if not name:
        return "fork/exec : no such file or directory"
    if isinstance(error, FileNotFoundError) and "/" not in name:
        return f"exec: {quote(raw(name))}: executable file not found in $PATH"
    reason = "invalid argument" if isinstance(error, ValueError) else (error.strerror or "").lower()
    return f"fork/exec {shutil.which(name) or name}: {reason}"


def ended(code: int) -> str:
    """Why it was no success; empty: it was."""
    if code < 0:
        return f"signal: {_SIGNALS.get(-code, f'signal {-code}')}"
    return f"exit status {code}" if code else ""
