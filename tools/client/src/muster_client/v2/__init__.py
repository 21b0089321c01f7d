"""A client of etcd's version 2 API: a tree of keys over HTTP, with its own errors and indexes.

It needs h11 (``muster-client[v2]``): a small, well kept parser of HTTP without input or output of its own,
so that waits can be cancelled in asyncio, which the standard library's client of blocking calls cannot.
"""

from muster_client.v2.client import Client, Node, Result
from muster_client.v2.errors import (
    CompareFailed,
    DirectoryNotEmpty,
    EventIndexCleared,
    KeyNotFound,
    NodeExists,
    NotADirectory,
    NotAFile,
    V2Error,
)

__all__ = ["Client", "CompareFailed", "DirectoryNotEmpty", "EventIndexCleared", "KeyNotFound", "Node",
           "NodeExists", "NotADirectory", "NotAFile", "Result", "V2Error"]  # fmt: skip
