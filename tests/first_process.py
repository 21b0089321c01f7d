"""Programs as the first process of a container."""

from __future__ import annotations

import functools
import subprocess

import pytest

_IN_ITS_OWN = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


@functools.cache
def _can() -> bool:
    try:
        return subprocess.run([*_IN_ITS_OWN, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def first(words: list[str]) -> list[str]:
    """This command as the first process of a namespace; the test is skipped where there can be none."""
    if not _can():
        pytest.skip("needs namespaces")
    return [*_IN_ITS_OWN, *words]
