"""Requests of plain HTTP to hosts: what gRPC does not tell."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from functools import cache

import httpx
from muster_client import Tls


def urls(endpoints: Iterable[str], tls: Tls | None) -> list[str]:
    """Endpoints as URLs."""
    scheme = "http" if tls is None else "https"
    return [(one if "://" in one else f"{scheme}://{one}").rstrip("/") for one in endpoints]


def client(tls: Tls | None, timeout_s: float) -> httpx.AsyncClient:
    """Connections with the console's certificate, as it is now; without one by the machine's authorities, as
    for all else. OSError."""
    context = _by_the_machine() if tls is None else _context(tls)
    return httpx.AsyncClient(verify=context, timeout=timeout_s, trust_env=False)


@cache
def _by_the_machine() -> ssl.SSLContext:
    """Loaded once: it takes a hundred milliseconds."""
    return _context(Tls())


def _context(tls: Tls) -> ssl.SSLContext:
    context = tls.context()
    context.set_alpn_protocols(["http/1.1"])
    return context
