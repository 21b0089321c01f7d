"""Where the nodes of a cluster listen.

A peer URL ``unix://host:port`` is, as at an etcd, a Unix socket named ``host:port`` in the working directory;
its host is ``unix:host`` (:data:`UNIX`).

A host has one peer port. Links say which shard they are for. Hosts of older versions have a port for each
shard, counted up from the peer port (:func:`older_endpoint`), and may still be dialled there.
"""

from __future__ import annotations

from urllib.parse import urlsplit

UNIX = "unix:"
HANDED = "handed://"


def peer_address(url: str) -> tuple[str, int]:
    """Host and port of a peer URL; port 0 where it has none. ValueError if it is malformed."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        name, _, port = parts.netloc.rpartition(":")
        return f"{UNIX}{name}", int(port) if name and port.isdecimal() else 0
    return parts.hostname or "", parts.port or 0


def peer_endpoint(host: str, port: int) -> str:
    return f"ipc://{host.removeprefix(UNIX)}:{port}" if host.startswith(UNIX) else tcp_endpoint(host, port)


def tcp_endpoint(host: str, port: int) -> str:
    """``tcp://HOST:PORT``, with an IPv6 address in brackets."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def ipc_endpoint(run_dir: str, shard: int) -> str:
    return f"ipc://{run_dir}/node-{shard}.sock"


def handed_endpoint(run_dir: str, shard: int) -> str:
    """Where a node is handed the connections of its host's peer port."""
    return f"{HANDED}{run_dir}/peers-{shard}.sock"


def older_endpoint(endpoint: str, shard: int) -> str:
    """Where a shard's node of an older host listens, by the host's peer endpoint."""
    rest, _, port = endpoint.rpartition(":")
    return f"{rest}:{int(port) + shard}" if shard else endpoint
