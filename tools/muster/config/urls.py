"""URLs of flags. ConfigError with etcd's words."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from cluster.endpoints import peer_address
from cluster.members.urls import mistake
from tools.muster.config.parse import ConfigError

LONGEST_SOCKET_PATH = 107  # bytes; the kernel's


@dataclass(slots=True, frozen=True)
class Url:
    """``text`` as written, with its host and port; of a Unix socket its path, and 0."""

    text: str
    host: str
    port: int

    @property
    def scheme(self) -> str:
        return self.text.partition(":")[0]

    @property
    def is_unix(self) -> bool:
        return self.scheme in ("unix", "unixs")

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost" or self.is_unix:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def resolved(url: Url) -> str:
    """The address of a URL's host, IPv4 first, as in Go (localhost is 127.0.0.1). OSError."""
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # of a name that DNS cannot have
        raise socket.gaierror(socket.EAI_NONAME, "no such host") from None
    return str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0])


def in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_url(text: str) -> Url:
    """A http or https URL with a port, or a Unix socket's; ConfigError in etcd's words.

    etcd 3.5 takes ``unix://host:port`` as a file of that name; later versions take any path, too.
    """
    if wrong := mistake(text.removesuffix("/")):
        raise ConfigError(wrong)
    try:
        parts = urlsplit(text)
    except ValueError:  # of brackets without an address
        raise ConfigError(f"expected IP in URL for binding ({text})") from None
    text = parts.scheme + text[len(parts.scheme) :]  # of HTTP:// the scheme is http
    if parts.scheme in ("unix", "unixs"):
        path = text.partition("://")[2]
        if not path:
            raise ConfigError(f'URL address does not have the form "host:port": {text}')
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ConfigError(f"listen unix {path}: bind: invalid argument")
        return Url(text, path, 0)
    try:
        port = parts.port
    except ValueError:
        given = parts.netloc.rpartition(":")[2]
        raise ConfigError(f"listen tcp: address {given}: invalid port") from None
    if not parts.hostname or port is None:
        raise ConfigError(f'URL address does not have the form "host:port": {text}')
    return Url(text.rstrip("/"), parts.hostname, port)


def parse_peer_url(text: str) -> Url:
    """A http or https URL with a port; or ``unix://host:port``, for etcd's peers a file of that name in the
    working directory."""
    url = parse_url(text)
    if not url.is_unix:
        return url
    if url.scheme == "unixs":
        raise ConfigError(f"{text}: peers talk by Unix sockets in clear, or over https")
    host, port = peer_address(url.text)
    if not port or urlsplit(text).path:
        raise ConfigError(f'URL address does not have the form "host:port": {text}')
    return Url(url.text, host, port)


def dialable(peer_url: str) -> Url | None:
    """None: it cannot be dialled. MemberAdd takes such URLs, as etcd's does."""
    try:
        return parse_peer_url(peer_url)
    except ConfigError:
        return None


def parse_urls(texts: tuple[str, ...]) -> tuple[Url, ...]:
    return tuple(parse_url(t) for t in texts)
