"""What hosts answer beside their API, as ``/metrics``: by the global flags, over HTTP/1.1."""

from __future__ import annotations

import ssl
import urllib.request

from tools.client.channels import Config
from tools.client.files import Files


def page(config: Config, endpoint: str, path: str, timeout_s: float) -> bytes:
    """OSError, ValueError. Exit: files of TLS cannot be used."""
    tls = config.target(endpoint).tls
    context = None if tls is None else Files(tls, protocol="http/1.1").context()
    scheme = "http" if tls is None else "https"
    url = endpoint.rstrip("/") if "://" in endpoint else f"{scheme}://{endpoint}"
    with _opener(context).open(url + path, timeout=timeout_s) as answer:
        content: bytes = answer.read()
    return content


def _opener(context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """Without the environment's proxies, as for all else."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
