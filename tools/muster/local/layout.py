"""The hosts of a local cluster: DIR/local.json, read by every `muster local` command."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from node.durable import write_whole
from tools.muster.config.parse import ConfigError

FILE = "local.json"
PORT_STEP = 100
TOKEN = "muster-local"


class NoCluster(ConfigError):
    """There is no local cluster."""


@dataclass(slots=True, frozen=True)
class LocalHost:
    """``arguments`` is the command line of the host's server."""

    index: int
    name: str
    client_port: int
    peer_port: int
    data_dir: str
    log_file: str
    arguments: tuple[str, ...]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"


@dataclass(slots=True, frozen=True)
class Layout:
    hosts: tuple[LocalHost, ...]
    shards: int

    def host(self, index: int) -> LocalHost:
        """ConfigError if there is no such host."""
        if not 0 <= index < len(self.hosts):
            raise ConfigError(f"there is no host {index}: they are 0 to {len(self.hosts) - 1}")
        return self.hosts[index]


def plan(
    data_dir: str, hosts: int, shards: int, base_port: int, fronts: int, cpus: list[str],
    extra: tuple[str, ...],
) -> Layout:
    """Host i's client port is ``base_port + 100 * i``; its peer port follows."""
    if not 1 <= hosts <= 99:
        raise ConfigError("--hosts must be 1 to 99")
    if not 1 <= base_port <= 65_534 - PORT_STEP * (hosts - 1):
        raise ConfigError(f"--base-port={base_port} leaves no room for the ports of {hosts} hosts")
    root = Path(data_dir).absolute()
    ports = [base_port + PORT_STEP * i for i in range(hosts)]
    cluster = ",".join(f"host{i}=http://127.0.0.1:{port + 1}" for i, port in enumerate(ports))
    made = []
    for i, port in enumerate(ports):
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
        arguments = (
            f"--name=host{i}", f"--data-dir={root / f'host{i}'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={cluster}", f"--initial-cluster-token={TOKEN}",
            f"--shards={shards}", f"--fronts={fronts}", f"--cpus={cpus[i]}", *extra,
        )  # fmt: skip
        made.append(
            LocalHost(
                i, f"host{i}", port, port + 1, str(root / f"host{i}"), str(root / f"host{i}.log"), arguments
            ))
    return Layout(tuple(made), shards)


def save(data_dir: str, layout: Layout) -> None:
    write_whole(Path(data_dir, FILE), f"{json.dumps(asdict(layout), indent=1)}\n".encode(), 0o644)


def load(data_dir: str) -> Layout:
    """NoCluster if there is none."""
    path = Path(data_dir, FILE)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        hosts = tuple(LocalHost(**{**h, "arguments": tuple(h["arguments"])}) for h in raw["hosts"])
        return Layout(hosts, raw["shards"])
    except FileNotFoundError:
        raise NoCluster(
            f"no local cluster in {data_dir}: start one with `muster local --data-dir {data_dir}`") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"cannot read {path}: {e}") from None
