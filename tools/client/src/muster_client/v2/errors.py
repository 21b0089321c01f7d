"""Errors of the version 2 API."""

from __future__ import annotations

from muster_client.errors import MusterError


class V2Error(MusterError):
    """The server's answer. ``code`` is the API's own, 0: it has none. ``index``: that of the store."""

    def __init__(self, code: int, text: str, cause: str = "", index: int = 0, *, maybe_done: bool = False):
        super().__init__(f"{text} ({cause})" if cause else text, maybe_done=maybe_done)
        self.code, self.cause, self.index = code, cause, index


def too_deep() -> V2Error:
    """Of an answer with more directories in each other than Python can read. ``RecursionError`` is no
    ``MusterError``: one deep key of anybody's would end every program that reads the tree."""
    return V2Error(0, "the answer is nested too deep")


class NotServed(V2Error):
    """The hosts have no API of version 2, or not this part of it."""


class Unauthorized(V2Error):
    """The user may not do this, is not known, or has another password; or no user is named."""


class KeyNotFound(V2Error):
    """There is no such key."""


class CompareFailed(V2Error):
    """The key has another value, or another index."""


class NotAFile(V2Error):
    """It is a directory."""


class NotADirectory(V2Error):
    """It is a key with a value."""


class NodeExists(V2Error):
    """It is there already."""


class DirectoryNotEmpty(V2Error):
    """It has keys; ``recursive`` deletes them, too."""


class EventIndexCleared(V2Error):
    """What was waited for happened too long ago: read, and wait from the index of that."""


BY_CODE: dict[int, type[V2Error]] = {
    100: KeyNotFound, 101: CompareFailed, 102: NotAFile, 104: NotADirectory, 105: NodeExists,
    108: DirectoryNotEmpty, 401: EventIndexCleared,
}
