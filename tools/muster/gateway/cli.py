"""The command line of ``muster gateway start``, with the flags of ``etcd gateway start``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import structlog
import uvloop
from muster_client.wire.endpoints import trusting

from tools.muster.config.kinds import Flag, Kind
from tools.muster.config.parse import ConfigError, UsageError, resolve
from tools.muster.flag_docs import flag_list
from tools.muster.gateway.forward import Endpoint, Forwarder
from tools.muster.host.supervising.notify import notify
from tools.muster.machine import logs
from tools.muster.machine.everywhere import EVERYWHERE
from tools.muster.machine.process.descriptors import raise_limit
from tools.srv import LookupFailed, records

log = structlog.get_logger("gateway")

_USAGE = """Forwards TCP connections to members: to clients this address is one more endpoint.

Usage:

  muster gateway start [flags]

Flags:
"""
FLAGS = {
    flag.name: flag
    for flag in (
        Flag("listen-addr", Kind.STR, "127.0.0.1:23790", "address to listen on"),
        Flag("endpoints", Kind.LIST, "127.0.0.1:2379", "client addresses of members", adds=True),
        Flag("discovery-srv", Kind.STR, "",
             "DNS domain whose SRV records name the members, instead of --endpoints"),
        Flag("discovery-srv-name", Kind.STR, "", "suffix of the SRV service: _etcd-client-ssl-<suffix>"),
        Flag("insecure-discovery", Kind.BOOL, "false",
             "accept members of SRV records without TLS, and do not verify certificates"),
        Flag("trusted-ca-file", Kind.STR, "",
             "authorities that signed the certificates of members in SRV records; default: the machine's"),
        Flag("retry-delay", Kind.DURATION, "1m0s",
             "delay before a failed endpoint is tried again"),
        Flag("help", Kind.BOOL, "false", "print this and exit"))
}  # fmt: skip


def run(args: Sequence[str]) -> int:
    """Pass connections on until told to stop; the exit code."""
    if not args or args[0] in ("help", "-h", "-help", "--help"):
        return _help()
    if args[0] != "start":
        raise UsageError(f'unknown command "{args[0]}" for "muster gateway"')
    try:
        values = resolve(FLAGS, args[1:], {}, use_environ=False)
    except UsageError as e:
        raise ConfigError(str(e)) from None  # etcd's gateway ends with 1
    if values["help"]:
        return _help()
    if values.rest:
        raise ConfigError(f"'{values.rest[0]}' is not a valid flag")
    logs.configure("muster/gateway", "info", "json", ("stderr",))
    host, port = _split(values["listen-addr"])
    endpoints: list[Endpoint] = []
    if values["discovery-srv"]:
        endpoints = discovered(
            values["discovery-srv"], values["discovery-srv-name"], values["trusted-ca-file"],
            insecure=values["insecure-discovery"])
    if not endpoints:
        endpoints = [Endpoint(*_split(text)) for text in values["endpoints"]]
    if not endpoints:
        raise ConfigError("--endpoints must not be empty")
    _refuse_itself(host, port, endpoints)
    raise_limit()
    uvloop.run(_serve(host, port, endpoints, max(values["retry-delay"], 1) / 1000))
    return 0


def _refuse_itself(host: str, port: int, endpoints: list[Endpoint]) -> None:
    """ConfigError: each connection would make another one, until no descriptor is left."""
    listens = _looked_up(host)
    for one in endpoints:
        if one.port != port:
            continue  # a silent name server takes long for each name
        found = _looked_up(one.host)
        if not found:
            log.warning("failed to resolve endpoint host", endpoint=str(one))
        for address in found:
            if address in listens or (host in ("", *EVERYWHERE) and _is_here(address)):
                raise ConfigError(
                    f"SRV or endpoint ({one}->{address}:{port}) should not resolve to the gateway listen addr"
                    f" ({Endpoint(host, port)})"
                )


def _looked_up(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _is_here(address: str) -> bool:
    """Whether this machine has the address: nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))
            return ip_address(address).is_loopback or str(sock.getsockname()[0]) == address
    except OSError:
        return False


async def _serve(host: str, port: int, endpoints: list[Endpoint], retry_s: float) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    forwarder = Forwarder(endpoints, log)
    try:
        server = await forwarder.listen(host, port)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ConfigError(f"listen tcp {host}:{port}: bind: {reason}") from None
    except UnicodeError:  # a label that is empty or too long
        raise ConfigError(f"listen tcp: lookup {host}: no such host") from None
    looks = loop.create_task(forwarder.look(retry_s))
    notify("READY=1")
    log.info("ready to proxy client requests", endpoints=[str(one) for one in endpoints])
    await stopping.wait()
    notify("STOPPING=1")
    looks.cancel()
    server.close()


def discovered(domain: str, name: str, ca: str, *, insecure: bool) -> list[Endpoint]:
    """The endpoints of a domain's records: clear ones only with ``insecure``, others with a certificate for
    the domain. ConfigError if there are none."""
    found: list[Endpoint] = []
    failures: list[str] = []
    for kind in ("-ssl", ""):
        service = f"_etcd-client{kind}{f'-{name}' if name else ''}._tcp.{domain}"
        try:
            named = [Endpoint(r.host.rstrip("."), r.port, r.priority, r.weight) for r in records(service)]
        except LookupFailed as error:
            failures.append(str(error))
            continue
        for endpoint in named:
            reason = "" if insecure else _why_not(endpoint, domain, ca) if kind else "it is insecure"
            if reason:
                log.warning("failed to validate secure endpoint", endpoint=str(endpoint), error=reason)
            else:
                found.append(endpoint)
    if len(failures) == 2:
        raise ConfigError(f"dns lookup errors: {' and '.join(failures)}")
    log.info("discovered cluster from SRV", srv=domain, endpoints=[str(one) for one in found])
    return found


def _why_not(endpoint: Endpoint, domain: str, ca: str) -> str:
    try:
        context = trusting(ca)
        with (
            socket.create_connection((endpoint.host, endpoint.port), 5) as raw,
            context.wrap_socket(raw, server_hostname=domain),
        ):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _split(text: str) -> tuple[str, int]:
    """``host:port``, with or without a scheme."""
    host, colon, port = text.partition("://")[2 if "://" in text else 0].rstrip("/").rpartition(":")
    if not colon or not port or port.endswith("]"):
        raise ConfigError(f"address {text}: missing port in address")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"address {port}: invalid port")
    return host.strip("[]"), int(port)


def _help() -> int:
    print(_USAGE)
    print(flag_list(FLAGS))
    return 0
