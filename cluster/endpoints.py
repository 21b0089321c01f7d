"""Where the nodes of a cluster listen."""

from __future__ import annotations


def tcp_endpoint(host: str, port: int) -> str:
    """``tcp://HOST:PORT``, with an IPv6 address in brackets."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def ipc_endpoint(run_dir: str, shard: int) -> str:
    """A node's socket for the fronts and nodes of its own host."""
    return f"ipc://{run_dir}/node-{shard}.sock"
