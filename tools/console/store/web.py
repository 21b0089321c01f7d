"""Requests of plain HTTP to hosts: what gRPC does not tell."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

import httpx
from muster_client import Tls
from muster_client.wire.endpoints import trusting


def urls(endpoints: Iterable[str], tls: Tls | None) -> list[str]:
    """Endpoints as URLs."""
    scheme = "http" if tls is None else "https"
    return [(one if "://" in one else f"{scheme}://{one}").rstrip("/") for one in endpoints]


def client(tls: Tls | None, timeout_s: float) -> httpx.AsyncClient:
    """Connections with the console's certificate."""
    context: ssl.SSLContext | bool = True
    if tls is not None:
        context = trusting(tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key, password="")
    return httpx.AsyncClient(verify=context, timeout=timeout_s, trust_env=False)
