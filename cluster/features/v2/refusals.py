"""The errors of etcd's v2 API: codes, messages, HTTP status."""

from __future__ import annotations

from enum import IntEnum

from cluster.features.v2.text import quoted


class Code(IntEnum):
    """``errorCode``."""

    KEY_NOT_FOUND = 100
    TEST_FAILED = 101
    NOT_FILE = 102
    NOT_DIR = 104
    NODE_EXIST = 105
    ROOT_READ_ONLY = 107
    DIR_NOT_EMPTY = 108
    UNAUTHORIZED = 110
    PREV_VALUE_REQUIRED = 201
    TTL_NAN = 202
    INDEX_NAN = 203
    INVALID_FIELD = 209
    INVALID_FORM = 210
    REFRESH_VALUE = 211
    REFRESH_TTL_REQUIRED = 212
    RAFT_INTERNAL = 300
    LEADER_ELECT = 301
    WATCHER_CLEARED = 400
    EVENT_INDEX_CLEARED = 401


MESSAGES: dict[int, str] = {
    Code.KEY_NOT_FOUND: "Key not found",
    Code.TEST_FAILED: "Compare failed",
    Code.NOT_FILE: "Not a file",
    Code.NOT_DIR: "Not a directory",
    Code.NODE_EXIST: "Key already exists",
    Code.ROOT_READ_ONLY: "Root is read only",
    Code.DIR_NOT_EMPTY: "Directory not empty",
    Code.UNAUTHORIZED: "The request requires user authentication",
    Code.PREV_VALUE_REQUIRED: "PrevValue is Required in POST form",
    Code.TTL_NAN: "The given TTL in POST form is not a number",
    Code.INDEX_NAN: "The given index in POST form is not a number",
    Code.INVALID_FIELD: "Invalid field",
    Code.INVALID_FORM: "Invalid POST form",
    Code.REFRESH_VALUE: "Value provided on refresh",
    Code.REFRESH_TTL_REQUIRED: "A TTL must be provided on refresh",
    Code.RAFT_INTERNAL: "Raft Internal Error",
    Code.LEADER_ELECT: "During Leader Election",
    Code.WATCHER_CLEARED: "watcher is cleared due to etcd recovery",
    Code.EVENT_INDEX_CLEARED: "The event in requested index is outdated and cleared",
}
_STATUS: dict[int, int] = {
    Code.KEY_NOT_FOUND: 404,
    Code.NOT_FILE: 403,
    Code.DIR_NOT_EMPTY: 403,
    Code.UNAUTHORIZED: 401,
    Code.TEST_FAILED: 412,
    Code.NODE_EXIST: 412,
    Code.RAFT_INTERNAL: 500,
    Code.LEADER_ELECT: 500,
}


def http_status(code: int) -> int:
    """The HTTP status of an error."""
    return _STATUS.get(code, 400)


class V2Error(Exception):
    """A refusal of the v2 tree. ``index``: of the tree, 0 where none is shown."""

    def __init__(self, code: int, cause: bytes | str = b"", index: int = 0) -> None:
        self.code = code
        self.cause = cause if isinstance(cause, bytes) else cause.encode()
        self.index = index
        super().__init__(f"{code} {MESSAGES[code]} ({self.cause.decode(errors='replace')}) [{index}]")

    def json(self, prefix: bytes = b"") -> bytes:
        """The body of the answer, with its end of line. ``prefix``: the namespace, which no client sees."""
        cause = quoted(self.cause.removeprefix(prefix))
        shown = f',"cause":{cause}' if cause != '""' else ""
        body = f'{{"errorCode":{self.code},"message":{quoted(MESSAGES[self.code].encode())}{shown},'
        return f'{body}"index":{self.index}}}\n'.encode()
