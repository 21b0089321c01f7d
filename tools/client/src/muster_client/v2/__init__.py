"""A client of etcd's version 2 API: a tree of keys over HTTP, with its own errors and indexes.

It needs h11 (``muster-client[api-v2]``): a small, well kept parser of HTTP without input or output of its
own. So waits can be cancelled in asyncio, which the standard library's client of blocking calls cannot.
"""

from muster_client.v2.client import Client, Given, Node, Result
from muster_client.v2.errors import (
    CompareFailed,
    DirectoryNotEmpty,
    EventIndexCleared,
    KeyNotFound,
    NodeExists,
    NotADirectory,
    NotAFile,
    NotServed,
    Unauthorized,
    V2Error,
)
from muster_client.v2.http import Answer

__all__ = ["Answer", "Client", "CompareFailed", "DirectoryNotEmpty", "EventIndexCleared", "Given",
           "KeyNotFound", "Node", "NodeExists", "NotADirectory", "NotAFile", "NotServed", "Result",
           "Unauthorized", "V2Error"]  # fmt: skip
