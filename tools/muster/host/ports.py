"""The ports that a host listens on: which they are, whether two collide, and whether they are free."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cluster.endpoints import HANDED, UNIX, handed_endpoint, older_endpoint, peer_endpoint
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig
from tools.muster.config.urls import LONGEST_SOCKET_PATH, Url, in_url, resolved
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.supervising.supervisor import Logger
from tools.muster.machine.everywhere import EVERYWHERE, knows_ipv6
from tools.muster.machine.zmtp.options import split
from tools.muster.machine.zmtp.own_user import is_near
from tools.muster.machine.zmtp.port.bound import Bound
from tools.muster.machine.zmtp.port.door import Door
from tools.muster.machine.zmtp.port.handing import Hands

_TOLD_AFTER_S = 1.0  # of waiting for a port
_LAST_PORT = 65_535


@dataclass(slots=True, frozen=True)
class Listener:
    """An address that this host binds, and the flag that asks for it."""

    host: str
    port: int
    asked_by: str
    shared: bool = False  # with a listener of another process that says so, too
    is_unix: bool = False  # ``host`` is a Unix socket's path

    @property
    def address(self) -> str:
        """``host:port``."""
        return self.host if self.is_unix else f"{in_url(self.host)}:{self.port}"

    def meets(self, other: Listener) -> bool:
        """Whether only one of the two can be bound. Of both families there are two (:func:`_both`)."""
        if self.is_unix or other.is_unix:
            return self.host == other.host
        if self.port != other.port or (":" in self.host) != (":" in other.host):
            return False
        return self.host == other.host or self.host in EVERYWHERE or other.host in EVERYWHERE


def bind_address(url: Url) -> str:
    """The address to bind for a URL; a name is resolved. Of a Unix socket its path, of a peers' one
    ``cluster.endpoints``' host. ConfigError."""
    if url.host.startswith(UNIX):
        return url.host
    if url.is_unix:
        return _socket_path(url.host)
    try:
        found = resolved(url)
    except OSError:
        raise ConfigError(f"cannot resolve the host of {url.text}") from None
    return "0.0.0.0" if found == "::" and not knows_ipv6() else found


def _socket_path(path: str) -> str:
    """It in full, or from the working directory where the kernel takes no path of that length."""
    whole = os.path.abspath(path)
    return whole if len(os.fsencode(whole)) <= LONGEST_SOCKET_PATH else path


def client_address(url: Url, among: Iterable[Url]) -> str:
    """:func:`bind_address`, or "": IPv6 and IPv4. ``::`` and ``0.0.0.0`` mean both, as in Go, unless one of
    the others has an address of the other family at its port."""
    host = bind_address(url)
    if not _means_both(host) or any(
        one.port == url.port and not one.is_unix and (":" in bind_address(one)) != (":" in host)
        for one in among
    ):
        return host
    return ""


def _means_both(host: str) -> bool:
    return host in EVERYWHERE and knows_ipv6()


def _both(listener: Listener) -> tuple[Listener, ...]:
    """What a listener binds that takes all addresses."""
    if not _means_both(listener.host):
        return (listener,)
    return (listener, replace(listener, host="0.0.0.0" if listener.host == "::" else "::"))


def client_urls(config: ServerConfig) -> tuple[Url, ...]:
    """All listen URLs but those for peers."""
    return (*config.listen_client, *config.listen_http, *config.listen_metrics)


def near_urls(config: ServerConfig) -> list[str]:
    """Where programs of this machine reach the client ports."""
    return [_near(url) for url in config.listen_client]


def _near(url: Url) -> str:
    if url.is_unix:
        return f"{url.scheme}://{os.path.abspath(url.host)}"
    return f"{url.scheme}://127.0.0.1:{url.port}" if url.host in EVERYWHERE else url.text


def listeners(config: ServerConfig, shards: int) -> list[Listener]:
    """All that this host binds: for clients, for metrics, and for peers. ``shards``: 0 of a proxy."""
    clients, shared = client_urls(config), config.values["socket-reuse-port"]
    found = [
        one
        for flag, urls in (
            ("listen-client-urls", config.listen_client),
            ("listen-client-http-urls", config.listen_http),
            ("listen-metrics-urls", config.listen_metrics))
        for url in {(u.host, u.port): u for u in urls}.values()
        for listener in (
            Listener(bind_address(url), url.port, f"--{flag}={url.text}", shared, url.is_unix),)
        for one in ((listener,) if client_address(url, clients) else _both(listener))
    ]  # http and https may share an address
    for peer in config.listen_peer if shards else ():
        found += _both(_at_endpoint(_endpoint(peer), f"--listen-peer-urls={peer.text}"))
    return found


def _endpoint(peer: Url) -> str:
    return peer_endpoint(bind_address(peer), peer.port)


def _at_endpoint(endpoint: str, asked_by: str) -> Listener:
    transport, host, port = split(endpoint)
    if transport == "ipc":
        return Listener(_socket_path(host), port, asked_by, is_unix=True)
    return Listener(host, port, asked_by)


def door(
    config: ServerConfig, identity: Identity, run_dir: str, log: Logger,
    born: Callable[[int], bool] = lambda shard: False,
) -> Door:
    """What holds the peer port, on the running loop. ConfigError.

    A host that an older version made also listens where older peers dial its further shards, as far as these
    ports are free: a cluster of new hosts may have other uses for them."""
    shards = identity.shard_count
    bound: list[tuple[Bound, int]] = []
    try:
        for peer in config.listen_peer:
            bound.append((Bound(_endpoint(peer), own_user=config.own_user_peers), 0))
    except OSError as e:
        for one, _ in bound:
            one.close()
        code = e.errno or errno.EIO
        raise ConfigError(f"listen tcp {peer.host}:{peer.port}: bind: {_words(code)}") from None
    for endpoint, shard, listener in _of_before(config, identity):
        reason = "this host listens there for something else"
        if not _is_taken(config, shards, listener):
            try:
                bound.append((Bound(endpoint, own_user=config.own_user_peers), shard))
                continue
            except OSError as e:
                reason = _words(e.errno or errno.EIO)
        log.warning("hosts of older versions cannot reach a shard here: its former port is not free",
                    shard=shard, address=listener.address, reason=reason)
    hands = Hands(lambda shard: handed_endpoint(run_dir, shard).removeprefix(HANDED))
    return Door(asyncio.get_running_loop(), bound, shards, hands, log, born,
                tls=config.peer_tls is not None)


def _of_before(config: ServerConfig, identity: Identity) -> list[tuple[str, int, Listener]]:
    """Endpoints, with their shards, where hosts of older versions dial this one besides its peer port."""
    return [
        (endpoint, shard, listener)
        for peer in (config.listen_peer if identity.older else ())
        for shard in identity.first[1:]
        for endpoint in (older_endpoint(_endpoint(peer), shard),)
        for listener in (_at_endpoint(endpoint, f"--listen-peer-urls={peer.text}, for older versions"),)
        if listener.port <= _LAST_PORT
    ]


def _is_taken(config: ServerConfig, shards: int, wanted: Listener) -> bool:
    return any(one.meets(other) for one in _both(wanted) for other in listeners(config, shards))


def compare(config: ServerConfig, shards: int) -> None:
    """ConfigError if two listeners of this host cannot be bound together."""
    mine = listeners(config, shards)
    _check_near(config)
    for at, one in enumerate(mine):
        for other in mine[:at]:
            if one.meets(other):
                raise ConfigError(
                    f"{other.asked_by} and {one.asked_by} would both listen on {one.address}")


def _check_near(config: ServerConfig) -> None:
    """ConfigError if a name for this machine means another one here."""
    for peer in config.listen_peer if config.own_user_peers else ():
        if not peer.is_unix and peer.is_loopback and not is_near(host := bind_address(peer)):
            raise ConfigError(
                f"--listen-peer-urls={peer.text} is {host} here, which is no loopback address: it needs a "
                "--peer-key-file, a --peer-trusted-ca-file, or --peer-insecure")


def check(config: ServerConfig, identity: Identity | None, log: Logger) -> None:
    """Compare the ports, and wait ``--port-wait`` at most until all are free: a killed supervisor's children
    may still end. ConfigError in etcd's words. ``identity``: None of a proxy. The ports of before are waited
    for, too, and :func:`door` does without those that stay in use."""
    shards = identity.shard_count if identity is not None else 0
    compare(config, shards)
    before = _of_before(config, identity) if identity is not None else []
    unneeded = [listener for _, _, listener in before if not _is_taken(config, shards, listener)]
    _wait(listeners(config, shards), config.values["port-wait"] / 1000, log, unneeded)


def wait_until_free(config: ServerConfig, shards: int, log: Logger) -> None:
    """Of a host of so many shards. ConfigError as above."""
    _wait(listeners(config, shards), config.values["port-wait"] / 1000, log)


def _wait(
    wanted: Sequence[Listener], limit_s: float, log: Logger, unneeded: Sequence[Listener] = ()
) -> None:
    """The limit is for all. ``unneeded``: what may stay in use."""
    began, told = time.monotonic(), False
    for listener in (*wanted, *unneeded):
        while (code := _bind_error(listener)) == errno.EADDRINUSE and time.monotonic() < began + limit_s:
            if not told and time.monotonic() > began + _TOLD_AFTER_S:
                told = True
                log.warning(
                    "a port is in use; waiting for it", address=listener.address, wanted_by=listener.asked_by,
                    limit_s=limit_s)
            time.sleep(0.05)
        if code and listener not in unneeded:
            network = "unix" if listener.is_unix else "tcp"
            raise ConfigError(f"listen {network} {listener.address}: bind: {_words(code)}")


def taken(host: str, wanted: Iterable[int]) -> str:
    """The first of these ports that cannot be bound, ``host:port`` with the reason; "" if all can."""
    for port in wanted:
        code = _bind_error(Listener(host, port, ""))
        if code:
            return f"{host}:{port}: bind: {_words(code)}"
    return ""


def _words(code: int) -> str:
    return "address already in use" if code == errno.EADDRINUSE else os.strerror(code).lower()


def _bind_error(listener: Listener) -> int:
    if listener.is_unix:
        return _unix_error(listener.host)
    with socket.socket(socket.AF_INET6 if ":" in listener.host else socket.AF_INET, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.shared:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            s.bind((listener.host, listener.port))
            if not listener.shared:  # it would take clients of the other process
                s.listen(1)
        except OSError as e:
            return e.errno or errno.EIO
    return 0


def _unix_error(path: str) -> int:
    """Whether a Unix socket can be made there. A socket without a listener may be replaced; another kind of
    file may not, though etcd would remove it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(1)
            s.connect(path)
        return errno.EADDRINUSE
    except FileNotFoundError:
        folder = os.path.dirname(path) or os.curdir
        return 0 if os.access(folder, os.W_OK | os.X_OK) else _reason(folder)
    except ConnectionRefusedError:
        return 0 if stat.S_ISSOCK(os.stat(path).st_mode) else errno.EADDRINUSE
    except OSError as e:
        return e.errno or errno.EIO


def _reason(folder: str) -> int:
    return errno.EACCES if os.path.isdir(folder) else errno.ENOENT
