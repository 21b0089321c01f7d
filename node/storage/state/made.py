"""The first database of a state."""

from __future__ import annotations

from pathlib import Path

from rocksdict import Options

from node.storage import directory, keys
from node.storage.errors import StorageCorruption
from node.storage.keys import Position
from node.storage.opening import open_database
from node.storage.options import UNLOGGED
from node.storage.state.rows import position_of


def made(root: Path, options: Options) -> str:
    """Make an empty database and return its name. Raises StorageCorruption if there was one before."""
    name = directory.FIRST
    if any(child.name != name and child.name.startswith("db-") for child in root.iterdir()):
        raise StorageCorruption(f"{root}: the file 'current' is missing beside {root}/db-*")
    # Either fresh or a crash before `current` was first written: that database is empty.
    database = open_database(root / name, options)
    if database.get(keys.POSITION_ROW) is None:
        database.put(keys.POSITION_ROW, keys.POSITION.pack(*Position(0, 0, 0, 1, 0)), UNLOGGED)
        database.flush(True)
    position = position_of(database, str(root / name))
    database.close()
    if position.order_index:
        raise StorageCorruption(f"{root}: the file 'current' is missing beside a database at {position}")
    directory.sync_tree(root / name)
    directory.write_current(root, name)
    return name
