"""What hosts answer beside their API, as ``/metrics``: by the global flags, over HTTP/1.1."""

from __future__ import annotations

import re
import socket
import ssl
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse

from tools.client.channels import Config
from tools.client.files import Files

_FINAL_DOT = re.compile(r"(?<=\w)\.(?=:\d+$)")  # of a host's name; no certificate has it


def page(config: Config, endpoint: str, path: str, timeout_s: float) -> bytes:
    """OSError, ValueError. Exit: files of TLS cannot be used."""
    target = config.target(endpoint)
    tls = target.tls
    context = None if tls is None else Files(tls, protocol="http/1.1").context()
    if target.unix:
        url = "http://localhost"  # by the socket, with TLS if there is a context
        handler: urllib.request.BaseHandler = _AtPath(target.address, context)
    else:
        scheme = "http" if tls is None else "https"
        url = endpoint.rstrip("/") if "://" in endpoint else f"{scheme}://{endpoint}"
        url = _FINAL_DOT.sub("", url)
        handler = urllib.request.HTTPSHandler(context=context)
    with _opener(handler).open(url + path, timeout=timeout_s) as answer:
        content: bytes = answer.read()
    return content


def _opener(handler: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Without the environment's proxies, as for all else."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)


class _AtPath(urllib.request.HTTPHandler):
    """By a Unix socket."""

    def __init__(self, path: str, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self._connection = partial(_Connection, path=path, context=context)

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._connection, req)


class _Connection(HTTPConnection):
    """To a Unix socket."""

    def __init__(self, host: str, *, timeout: float, path: str, context: ssl.SSLContext | None) -> None:
        super().__init__(host, timeout=timeout)
        self._path, self._context = path, context

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)
