"""Folders with names that are short enough for sockets, as pytest's are not. They go with this process."""

from __future__ import annotations

import atexit
import shutil
import tempfile


def short_dir() -> str:
    """A new one."""
    path = tempfile.mkdtemp(prefix="muster-test-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
