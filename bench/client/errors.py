"""The one error of a call: a gRPC status that is not OK."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call that ended with a status other than OK, or whose connection ended first.

    ``sent`` is False only where the server has certainly not seen the call (refused before it was opened, or
    above a GOAWAY's last stream): it may be sent again.
    """

    def __init__(self, code: int, message: str, *, sent: bool = True) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.sent = sent

    @property
    def name(self) -> str:
        """``UNAVAILABLE`` and the like; a number for a code that gRPC does not define."""
        try:
            return Status(self.code).name
        except ValueError:
            return str(self.code)

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"
