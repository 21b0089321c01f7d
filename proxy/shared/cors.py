"""Which web pages may read answers."""

from __future__ import annotations

from collections.abc import Container


def cors_fields(origins: Container[str], origin: str) -> list[tuple[str, str]]:
    """Those of an answer to a page of ``origin``."""
    allowed = "*" if "*" in origins else origin if origin in origins else ""
    return [
        ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
        ("Access-Control-Allow-Origin", allowed),
        ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
    ] if allowed else []
