"""The tree of version 2: keys and directories, with times to live."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from muster_client.v2 import CompareFailed, Given, NodeExists

from tools.console.store.v2.calls import Version2

MOST_SHOWN = 500
_IN_ORDER = re.compile(r"\d{20}")


class Overtaken(Exception):
    """Another client changed the node meanwhile, or made one of that name."""


@dataclass(frozen=True, slots=True)
class Node:
    """A key, or a directory. ``ttl_s``: None, it stays."""

    key: str
    is_directory: bool
    value: str = ""
    created: int = 0
    modified: int = 0
    ttl_s: int | None = None
    nodes: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2] or "/"

    @property
    def is_hidden(self) -> bool:
        """No list shows it: it is found by its name alone."""
        return self.name.startswith("_")

    @property
    def is_in_order(self) -> bool:
        """The store named it, by the order of arrival."""
        return _IN_ORDER.fullmatch(self.name) is not None


def joined(directory: str, name: str) -> str:
    """The key of a name in a directory; a name with a slash in front is a key by itself."""
    path = name if name.startswith("/") else f"{directory}/{name}"
    return "/" + "/".join(part for part in path.split("/") if part)


def parents(key: str) -> list[str]:
    """The directories above a key, from the root."""
    parts = [part for part in key.split("/") if part]
    return ["/", *("/" + "/".join(parts[:count]) for count in range(1, len(parts)))]


def _node(told: dict[str, Any]) -> Node:
    return Node(
        told.get("key", "/"),
        told.get("dir", False),
        told.get("value", ""),
        told.get("createdIndex", 0),
        told.get("modifiedIndex", 0),
        told.get("ttl"),
        tuple(map(_node, told.get("nodes") or ())),
    )


async def read(v2: Version2, key: str) -> Node:
    """A key, or a directory with what lies in it, by name. V2Error."""
    told = await v2.ask("GET", f"/keys{joined('/', key)}", query={"sorted": True, "quorum": True})
    return _node(told["node"])


async def recent(v2: Version2, key: str) -> Node:
    """The same, perhaps as of a moment ago: browsers that show the same node share one request. V2Error."""
    told = await v2.shared(f"/keys{joined('/', key)}", {"sorted": True, "quorum": True})
    return _node(told["node"])


async def create(v2: Version2, key: str, value: str, ttl_s: int | None) -> Node:
    """A key that is not there yet. Overtaken, V2Error."""
    return await _changed(v2, "PUT", key, {"prevExist": False}, {"value": value, "ttl": ttl_s})


async def make_directory(v2: Version2, key: str, ttl_s: int | None) -> Node:
    """A directory that is not there yet. Overtaken, V2Error."""
    return await _changed(v2, "PUT", key, {"prevExist": False}, {"dir": True, "ttl": ttl_s})


async def append(v2: Version2, directory: str, value: str, ttl_s: int | None) -> Node:
    """A key in a directory that the store names, behind all that came before. V2Error."""
    return await _changed(v2, "POST", directory, {}, {"value": value, "ttl": ttl_s})


async def save(v2: Version2, seen: Node, value: str, ttl_s: int | None) -> Node:
    """Another value, if nobody changed the key since it was seen. ``ttl_s`` None: it stays. Overtaken."""
    return await _changed(
        v2,
        "PUT",
        seen.key,
        {"prevIndex": seen.modified},
        {"value": value, "ttl": "" if ttl_s is None else ttl_s},
    )


async def remove(v2: Version2, seen: Node) -> None:
    """Delete a key, if nobody changed it since it was seen; a directory with all below it. Overtaken."""
    if seen.is_directory:
        await v2.ask("DELETE", f"/keys{seen.key}", query={"dir": True, "recursive": True})
        return
    await _changed(v2, "DELETE", seen.key, {"prevIndex": seen.modified}, None)


async def _changed(v2: Version2, method: str, key: str, query: Given, form: Given | None) -> Node:
    try:
        told = await v2.ask(method, f"/keys{joined('/', key)}", query=query, form=form)
    except (CompareFailed, NodeExists) as error:
        raise Overtaken(str(error)) from None
    return _node(told["node"])
