"""Why a call failed, and whether it may have been done all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc

Code = grpc.StatusCode
Error = TypeVar("Error", bound="MusterError")


class MusterError(Exception):
    """Any failure of a call. ``maybe_done``: the cluster may have done it, or may do it yet; false: it has
    not, and never will. ``endpoint``: of the attempt that met it, "" where there was none."""

    endpoint = ""

    def __init__(self, text: str, *, maybe_done: bool = False) -> None:
        super().__init__(text)
        self.maybe_done = maybe_done

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """For other processes and copies: what made it took more than ``args``."""
        return _made, (type(self), self.args, self.__dict__)


class Unreachable(MusterError):
    """No endpoint took the call in time. ``reasons``: why, by endpoint."""

    def __init__(self, reasons: Mapping[str, str], *, maybe_done: bool = False) -> None:
        told = "; ".join(f"{endpoint}: {reason}" for endpoint, reason in reasons.items())
        super().__init__(f"no endpoint can be reached: {told}", maybe_done=maybe_done)
        self.reasons = dict(reasons)


class DeadlineExceeded(MusterError, TimeoutError):
    """No answer in time."""


class ServerError(MusterError):
    """The server's own answer, or the end of its connection. ``code`` is gRPC's, ``message`` etcd's text."""

    def __init__(self, code: grpc.StatusCode, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(message or code.name, maybe_done=maybe_done)
        self.code, self.message = code, message


class Unavailable(ServerError):
    """The connection ended, or the cluster has no majority."""


class InvalidRequest(ServerError):
    """The server refuses such a request whatever it holds."""


class PermissionDenied(ServerError):
    """The user may not do this, or there is no user."""


class AuthenticationFailed(ServerError):
    """The name or the password is wrong."""


class LeaseNotFound(ServerError):
    """The lease has ended, or did not exist."""


class NoSpace(ServerError):
    """The store is full; deletes and compactions still work."""


class FutureRevision(ServerError):
    """The cluster has not come to that revision."""


class Compacted(ServerError):
    """What was asked for is gone. ``revision``: the oldest that a watch can begin with; 0: not known."""

    def __init__(self, message: str, revision: int = 0) -> None:
        super().__init__(Code.OUT_OF_RANGE, message)
        self.revision = revision


class LeaseLost(MusterError):
    """The lease has ended, or was not renewed in time: what it held may be another's."""


class Removed(MusterError):
    """The key of a registration was deleted, by none of its own doing."""


class NotHeld(MusterError):
    """The lock or the leadership is not held (any more)."""


class Taken(MusterError):
    """Another holds it, or as many take part as may."""


class NoInstance(MusterError):
    """No instance of the service is there."""


def told_again(error: MusterError, *, maybe_done: bool) -> MusterError:
    """The same error for a request of its own: several may wait for what failed."""
    again = _made(type(error), error.args, error.__dict__)
    again.maybe_done = maybe_done
    return again


def _made(kind: type[Error], args: tuple[Any, ...], state: Mapping[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


_BY_TEXT: dict[str, type[ServerError]] = {
    "etcdserver: requested lease not found": LeaseNotFound,
    "etcdserver: mvcc: required revision is a future revision": FutureRevision,
    "etcdserver: mvcc: database space exceeded": NoSpace,
    "etcdserver: permission denied": PermissionDenied,
    "auth: permission denied": PermissionDenied,  # of etcd 3.4 and 3.5, for maintenance
    "etcdserver: user name is empty": PermissionDenied,
    "etcdserver: authentication failed, invalid user ID or password": AuthenticationFailed,
    "auth: authentication failed, password was given for no password user": AuthenticationFailed,
    "etcdserver: invalid auth token": AuthenticationFailed,
}
_BY_CODE: dict[grpc.StatusCode, type[ServerError]] = {
    Code.UNAVAILABLE: Unavailable,
    Code.INVALID_ARGUMENT: InvalidRequest,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.UNAUTHENTICATED: AuthenticationFailed,
}
COMPACTED = "etcdserver: mvcc: required revision has been compacted"


def of_status(
    code: grpc.StatusCode, message: str, *, maybe_done: bool = False, endpoint: str = ""
) -> MusterError:
    """The exception for a call's status."""
    error: MusterError
    if message == COMPACTED:
        error = Compacted(message)
    elif code is Code.DEADLINE_EXCEEDED:
        error = DeadlineExceeded("no answer in time", maybe_done=maybe_done)
    else:
        kind = _BY_TEXT.get(message) or _BY_CODE.get(code) or ServerError
        error = kind(code, message, maybe_done=maybe_done)
    error.endpoint = endpoint
    return error
