"""How a connection begins: an address, TLS, the server's settings."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable

from muster_client.wire.endpoints import Endpoint
from muster_client.wire.http2.connection import Connection

DIAL_S = 5.0  # of one attempt


class DialError(Exception):
    """There is no connection; the message says why."""


async def dial(endpoint: Endpoint, on_lost: Callable[[], None]) -> Connection:
    """A connection that takes calls. DialError."""
    loop = asyncio.get_running_loop()
    made: list[Connection] = []
    limit_s = DIAL_S if endpoint.limits is None else endpoint.limits.dial_s

    def make() -> Connection:
        made.append(Connection(
            endpoint.authority, secure=endpoint.tls is not None, on_lost=on_lost, limits=endpoint.limits))
        return made[-1]

    try:
        async with asyncio.timeout(limit_s):
            context = None if endpoint.tls is None else await asyncio.to_thread(endpoint.tls.context)
            name = None
            if endpoint.tls is not None:  # certificates have no final dot, which names of SRV records have
                name = (endpoint.tls.server_name or endpoint.host).removesuffix(".") or "localhost"
            if endpoint.path:
                transport, connection = await loop.create_unix_connection(
                    make, endpoint.path, ssl=context, server_hostname=name)
            else:
                transport, connection = await loop.create_connection(
                    make, endpoint.host, endpoint.port, ssl=context, server_hostname=name,
                    happy_eyeballs_delay=_stagger_s(endpoint.host))
            secured = transport.get_extra_info("ssl_object")
            if secured is not None and secured.selected_alpn_protocol() != "h2":
                raise ConnectionError("the server speaks no HTTP/2 by TLS (ALPN)")
            await connection.ready
            return connection
    except BaseException as error:
        for one in made:
            one.close("it was given up before it served")
        if isinstance(error, Exception):
            raise DialError(_why(error, limit_s)) from None
        raise


def _stagger_s(host: str) -> float | None:
    """Between attempts at a host's addresses. An address needs none, and asyncio's race of attempts leaves
    its socket open where it is cancelled as it is won."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return 0.25
    return None


def _why(error: Exception, limit_s: float) -> str:
    """In a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer to an attempt to connect in {limit_s:g} s"
    if isinstance(error, socket.gaierror):
        return f"DNS resolution failed: {error.strerror}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) + (f": {error.filename}" if error.filename else "")
    return str(error) or type(error).__name__
