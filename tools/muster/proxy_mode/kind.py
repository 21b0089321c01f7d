"""What a data directory was used for: a member's has a folder ``member``, a proxy's ``proxy``, as etcd's.

A proxy's file ``cluster`` has the members' peer URLs, and makes its flags unnecessary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from node.durable import write_whole
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap


class Kind(Enum):
    NOBODY = "new"
    MEMBER = "member"
    PROXY = "proxy"


def cluster_file(data_dir: str) -> Path:
    return Path(data_dir, "proxy", "cluster")


def kind_of(data_dir: str) -> Kind:
    """An empty ``member`` is a refused first start's. ConfigError."""
    try:
        member = bool(os.listdir(bootstrap.member_dir(data_dir)))
    except OSError:
        member = False
    proxy = cluster_file(data_dir).exists()
    if member and proxy:
        raise ConfigError("invalid datadir. Both member and proxy directories exist.")
    return Kind.MEMBER if member else Kind.PROXY if proxy else Kind.NOBODY


def names_members(data_dir: str) -> bool:
    return bootstrap.is_known(data_dir) or cluster_file(data_dir).exists()


def read(data_dir: str) -> tuple[str, ...] | None:
    """The peer URLs that a proxy keeps; None: it is new. ConfigError."""
    path = cluster_file(data_dir)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["PeerURLs"]
        if not isinstance(found, list) or not all(isinstance(url, str) for url in found):
            raise ValueError("no list of URLs")
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ConfigError(f"{path} is damaged ({e}): remove it, and name the cluster by flags") from None
    return tuple(found)


def write(data_dir: str, peer_urls: Sequence[str]) -> None:
    """OSError."""
    path = cluster_file(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps({"PeerURLs": list(peer_urls)}, separators=(",", ":")).encode())
