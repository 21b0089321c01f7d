"""``musterctl defrag --data-dir``: compact the stored state of a stopped host."""

from __future__ import annotations

import contextlib
import os

from node.storage import NoRoom, StateStore, StorageError
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap
from tools.muster.host.rundir import DataDirLock

_CACHE_BYTES = 4 << 20


def defragment(data_dir: str) -> None:
    """All shards, one after the other. ConfigError: there is no host's data, it cannot be read, or the host
    runs."""
    try:
        if not bootstrap.is_known(data_dir):
            raise ConfigError(f"{data_dir} holds no data of a host")
        lock = DataDirLock(data_dir)
        try:
            for shard in bootstrap.known(data_dir).shards:
                _defragment(os.path.join(bootstrap.shard_dir(data_dir, shard), "state"))
        finally:
            lock.release()
    except (NoRoom, StorageError) as e:
        raise ConfigError(str(e)) from None
    except OSError as e:
        raise ConfigError(f"{e.filename or data_dir}: {(e.strerror or str(e)).lower()}") from None


def _defragment(path: str) -> None:
    if not os.path.isdir(path):  # its node has not begun
        return
    opened = StateStore.open(path, block_cache_bytes=_CACHE_BYTES, range_cache_bytes=0)
    with contextlib.closing(opened) as store:
        store.defragment()
