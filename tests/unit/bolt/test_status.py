"""What ``snapshot status`` holds at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import google_crc32c
import pytest

from cluster.bolt import status


def test_no_more_than_a_mib_and_a_value_are_joined_to_be_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 rows were, whatever their size: 2.6 GiB of values of 10 MiB."""
    rows = [(b"%03d" % at, bytes([at]) * 300_000) for at in range(50)]
    database = SimpleNamespace(
        buckets=lambda: [b"lease"], rows=lambda bucket: rows, get=lambda bucket, key: None, size_bytes=1)
    monkeypatch.setattr(status, "Database", lambda data: database)
    monkeypatch.setattr(status, "check", lambda database: None)
    joined: list[int] = []

    def extend(crc: int, data: bytes) -> Any:
        joined.append(len(data))
        return google_crc32c.extend(crc, data)

    monkeypatch.setattr(status, "google_crc32c", SimpleNamespace(extend=extend))
    found = status.status_of(b"")
    assert max(joined) < (1 << 20) + 2 * 300_000
    assert found.total_keys == 50
    assert found.hash == google_crc32c.value(b"lease" + b"".join(key + value for key, value in rows))
