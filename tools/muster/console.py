"""The command line of ``muster console``, which serves ``tools.console``."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from cluster.settings import Tls as ServerTls
from tools.muster.config.kinds import Flag, Kind
from tools.muster.config.parse import ConfigError, UsageError, Values, resolve
from tools.muster.flag_docs import flag_list
from tools.muster.machine.everywhere import EVERYWHERE, knows_ipv6

if TYPE_CHECKING:
    import uvicorn

    from tools.console.certificates import Listening
    from tools.console.sessions import Target

USAGE = """A web console of a cluster of muster, or of etcd 3.4 to 3.7.

Usage:

  muster console [flags]

Flags:
"""
FLAGS = {
    flag.name: flag
    for flag in (
        Flag("endpoints", Kind.LIST, "127.0.0.1:2379", "client addresses of hosts"),
        Flag("listen", Kind.STR, "http://127.0.0.1:8378", "URL for browsers; https needs --cert-file"),
        Flag("allowed-hosts", Kind.LIST, "",
             'names that browsers may call the console by, besides its address; "*": any'),
        Flag("read-only", Kind.BOOL, "false", "change nothing in the cluster"),
        Flag("cert-file", Kind.STR, "", "certificate of the console, for https"),
        Flag("key-file", Kind.STR, "", "its key"),
        Flag("trusted-ca-file", Kind.STR, "", "authorities of browsers' certificates"),
        Flag("client-cert-auth", Kind.BOOL, "false", "browsers must show a certificate"),
        Flag("client-crl-file", Kind.STR, "", "list of revoked certificates of browsers, in PEM or DER"),
        Flag("user-certs", Kind.STR, "",
             "folder of users' certificates, NAME.pem and NAME-key.pem: the console shows hosts the one with "
             "the common name of the visitor's certificate"),
        Flag("log-in", Kind.BOOL, "true",
             "visitors log in if the cluster has users; false: visitors without a login act as the user of "
             "--cert"),
        Flag("cacert", Kind.STR, "", "authorities that signed the certificates of the hosts"),
        Flag("cert", Kind.STR, "", "certificate that the console shows to the hosts"),
        Flag("key", Kind.STR, "", "its key"),
        Flag("help", Kind.BOOL, "false", "print this and exit"))
}  # fmt: skip
NEEDS = ("nicegui",)


def run(args: Sequence[str]) -> int:
    """Serve browsers until told to stop; the exit code."""
    values = resolve(FLAGS, list(args), {}, use_environ=False)
    if values["help"]:
        print(USAGE + flag_list(FLAGS))
        return 0
    if values.rest:
        raise UsageError(f"'{values.rest[0]}' is not a valid flag")
    require()
    _serve(values)
    return 0


def require() -> None:
    """ConfigError if the console is not installed."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the console needs {' and '.join(missing)}: "
            f"pip install '.[console]' ./tools/client in muster's folder"
        )


def _serve(values: Values) -> None:
    import uvicorn

    from tools.console import app
    from tools.console.bounds import MOST_MESSAGE_BYTES
    from tools.console.certificates import Certified
    from tools.console.guard import LOOPBACK
    from tools.console.sockets import Sockets

    scheme, host, port = listen_of(values["listen"], values["cert-file"], values["key-file"])
    names = {_shown(host), *values["allowed-hosts"]}
    if _shown(host) in LOOPBACK:
        names.update(LOOPBACK)
    listening = _listening(values)
    console = app.made(_target(values))
    logging.getLogger("muster_client").setLevel(logging.ERROR)
    with _bound(host, port) as listener:  # a process builds NiceGUI's app once: not if the port is taken
        config = uvicorn.Config(
            app.asgi(console, names, secure=scheme == "https"),
            log_level="warning",
            access_log=False,
            server_header=False,
            http=cast(type[asyncio.Protocol], partial(Certified, listening)),
            ws=Sockets,
            ws_max_size=MOST_MESSAGE_BYTES,
            # log-ins take turns by address, so no client says its own. By default uvicorn believes each
            # program of this machine; its variable names proxies to believe
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", ""),
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = listening.first if listening is not None else None
        print(
            f"muster: console of {','.join(values['endpoints'])} at {scheme}://{_shown(host)}:"
            f"{listener.getsockname()[1]}",
            flush=True,
        )
        asyncio.run(_until_told(uvicorn.Server(config), listener))


async def _until_told(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal; then end in order, with exit code 0."""
    serving = asyncio.create_task(
        server._serve(sockets=[listener])
    )  # ``serve`` raises signals again at its end

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await serving


def _target(values: Values) -> Target:
    from muster_client import Tls
    from muster_client.wire.endpoints import parsed

    from tools.console.certificates import Certificates
    from tools.console.sessions import Target

    certificates = None
    try:
        given = values["cacert"] or values["cert"]
        tls = Tls(values["cacert"], values["cert"], values["key"]) if given else None
        found = parsed(values["endpoints"], tls)
        if tls is not None:
            tls.context()
        if folder := values["user-certs"]:
            secured = tls is not None or all(at.tls for at in found)
            if not (secured and values["trusted-ca-file"]):
                raise ConfigError(
                    "--user-certs goes with --trusted-ca-file and https --endpoints or --cacert")
            certificates = Certificates(folder, values["client-crl-file"])
            certificates.check()
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    endpoints = tuple(values["endpoints"])
    return Target(endpoints, tls, values["read-only"], certificates, values["log-in"])


def _listening(values: Values) -> Listening | None:
    """What TLS with browsers goes by; None: there is none. ConfigError."""
    from tools.console.certificates import Listening

    authorities, crl, required = (
        values[name] for name in ("trusted-ca-file", "client-crl-file", "client-cert-auth")
    )
    if not authorities and (required or crl):
        raise ConfigError("--client-cert-auth and --client-crl-file go with --trusted-ca-file")
    if not values["cert-file"]:
        if authorities:
            raise ConfigError("--trusted-ca-file goes with --listen https://")
        return None
    tls = ServerTls(values["cert-file"], values["key-file"], trusted_ca_file=authorities, crl_file=crl)
    try:
        return Listening(tls, required=required)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


def listen_of(text: str, cert: str, key: str, flag: str = "--listen") -> tuple[str, str, int]:
    """Scheme, name and port of the flag. ConfigError."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        raise ConfigError(f"{flag} {text} is no URL") from None
    if url.scheme not in ("http", "https") or not host or port is None or url.path.strip("/"):
        raise ConfigError(f"{flag} {text} is no URL such as http://127.0.0.1:8378")
    if (url.scheme == "https") != bool(cert) or bool(cert) != bool(key):
        raise ConfigError(f"{flag} https:// goes with --cert-file and --key-file")
    return url.scheme, host, port


def _bound(host: str, port: int) -> socket.socket:
    """The listening socket. ConfigError."""
    try:
        if host in EVERYWHERE:
            if knows_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            host = "0.0.0.0"
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"listen tcp {_shown(host)}:{port}: bind: {reason}") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
