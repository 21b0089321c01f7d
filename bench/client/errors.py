"""The one error of a call: a gRPC status that is not OK."""

from __future__ import annotations

from cluster.errors import AUTH_OLD_REVISION, INVALID_AUTH_TOKEN, Code

Status = Code  # of gRPC
_OUTDATED = (INVALID_AUTH_TOKEN.text, AUTH_OLD_REVISION.text)


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
        """``UNAVAILABLE`` and similar ones; a number for a code that gRPC does not define."""
        try:
            return Status(self.code).name
        except ValueError:
            return str(self.code)

    @property
    def outdated_login(self) -> bool:
        """Whether a new login helps: it is refused before anything is done."""
        return self.message in _OUTDATED

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"
