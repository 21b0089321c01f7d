"""import."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.musterctl.command import Exit
from tools.musterctl.v2.client import SERVER_ERROR, Refused, connect, fail
from tools.musterctl.v2.exchange import RequestError
from tools.musterctl.v2.keys import Keys
from tools.musterctl.v2.start import Run

_SHORTEST_S = 300


def import_(run: Run) -> None:
    """Set every key of a file: of a saved v2 store, or of an answer to ``GET /v2/keys/?recursive=true``. No
    tool saves the v2 store of an etcd 3 in the former's form."""
    file = run.options.string("snap")
    try:
        found = json.loads(Path(file).read_bytes()) if file else None
        if isinstance(found, dict) and "Root" not in found:
            found = {"Root": _as_saved(found["node"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("Root"), dict):
        print(f"cannot read snapshot file {file}" if file else "no snapshot file provided (use --snap)")
        raise Exit(1)
    clients = max(run.options.number("c"), 1)
    print(f"starting to import snapshot {file} with {clients} clients", flush=True)
    client = connect(run.globals)  # reports errors before anything is copied
    tops = [found["Root"]]
    for hidden in run.options.strings("hidden"):
        node = _at(found["Root"], hidden)
        if node is None:
            fail(SERVER_ERROR, f"100: Key not found ({hidden}) [{found.get('CurrentIndex', 0)}]")
        tops.append(node)
    rows = [row for top in tops for row in _files(top, hidden_too=top is not found["Root"])]

    def copy(part: int) -> None:
        keys = Keys(client.another())
        for key, value, ttl in rows[part::clients]:
            _say(f"copying key: {key}")
            if 0 < ttl < _SHORTEST_S:
                _say(f"extending key {key}'s ttl to {_SHORTEST_S} seconds")
                ttl = _SHORTEST_S
            keys.put(key, value, ttl)

    try:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(copy, range(clients)))
    except (RequestError, Refused) as error:
        _say(f"failed to copy key: {error}")
        raise Exit(1) from None
    print(f"finished importing {len(rows)} keys")


def _as_saved(node: dict[str, Any]) -> dict[str, Any]:
    """A node of an answer as a saved store has it."""
    key = node.get("key", "/")
    below = None
    if node.get("dir"):
        below = {child["key"].rpartition("/")[2]: _as_saved(child) for child in node.get("nodes", ())}
    expires = node.get("expiration", "")
    return {"Path": key, "Value": node.get("value", ""), "ExpireTime": expires, "Children": below}


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}\n")


def _at(root: dict[str, Any], path: str) -> dict[str, Any] | None:
    node: dict[str, Any] | None = root
    for part in path.strip("/").split("/"):
        node = ((node or {}).get("Children") or {}).get(part)
    return node


def _files(node: dict[str, Any], hidden_too: bool) -> Iterator[tuple[str, str, int]]:
    """Key, value and TTL of all files below; names that begin with ``_`` only if asked for."""
    key, children = str(node.get("Path", "")), node.get("Children")
    if children is None:
        yield key, str(node.get("Value", "")), _ttl(str(node.get("ExpireTime", "")))
        return
    _say(f"entering dir: {key}")
    for name in sorted(children):
        if hidden_too or not name.startswith("_"):
            yield from _files(children[name], False)


def _ttl(expires: str) -> int:
    """Seconds left, 0 for ever; an expired key gets the shortest time."""
    if not expires or expires.startswith("0001-"):
        return 0
    try:
        at = datetime.fromisoformat(expires)
    except ValueError:
        return 0
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    return max(int(left.total_seconds()), 1)
