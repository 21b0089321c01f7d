"""The errors of etcd's v2 API: codes, messages, HTTP status."""

from __future__ import annotations

from enum import IntEnum

from cluster.features.v2.text import quoted, quoted_or_left


class Code(IntEnum):
    """``errorCode``, with its message and HTTP status."""

    message: str
    status: int

    def __new__(cls, code: int, message: str, status: int = 400) -> Code:
        made = int.__new__(cls, code)
        made._value_, made.message, made.status = code, message, status
        return made

    KEY_NOT_FOUND = 100, "Key not found", 404
    TEST_FAILED = 101, "Compare failed", 412
    NOT_FILE = 102, "Not a file", 403
    NOT_DIR = 104, "Not a directory"
    NODE_EXIST = 105, "Key already exists", 412
    ROOT_READ_ONLY = 107, "Root is read only"
    DIR_NOT_EMPTY = 108, "Directory not empty", 403
    UNAUTHORIZED = 110, "The request requires user authentication", 401
    PREV_VALUE_REQUIRED = 201, "PrevValue is Required in POST form"
    TTL_NAN = 202, "The given TTL in POST form is not a number"
    INDEX_NAN = 203, "The given index in POST form is not a number"
    INVALID_FIELD = 209, "Invalid field"
    INVALID_FORM = 210, "Invalid POST form"
    REFRESH_VALUE = 211, "Value provided on refresh"
    REFRESH_TTL_REQUIRED = 212, "A TTL must be provided on refresh"
    RAFT_INTERNAL = 300, "Raft Internal Error", 500
    EVENT_INDEX_CLEARED = 401, "The event in requested index is outdated and cleared"


_KNOWN: dict[int, Code] = {int(code): code for code in Code}


def http_status(code: int) -> int:
    """The HTTP status of an error."""
    return _KNOWN[code].status if code in _KNOWN else 400


class V2Error(Exception):
    """A refusal of the v2 tree. ``index``: of the tree, 0 where none is shown."""

    def __init__(self, code: int, cause: bytes | str = b"", index: int = 0) -> None:
        self.code = code
        self.cause = cause if isinstance(cause, bytes) else cause.encode()
        self.index = index
        super().__init__(f"{code} {_KNOWN[code].message} ({self.cause.decode(errors='replace')}) [{index}]")

    def json(self, prefix: bytes = b"", left: list[bytes] | None = None) -> bytes:
        """The body of the answer. ``prefix``: the namespace, which no client sees; ``left``: see ``text``."""
        cause = quoted_or_left(self.cause.removeprefix(prefix), left)
        shown = f',"cause":{cause}' if cause != '""' else ""
        body = f'{{"errorCode":{self.code},"message":{quoted(_KNOWN[self.code].message.encode())}{shown},'
        return f'{body}"index":{self.index}}}\n'.encode()
