"""What a failed call says about its request: the one table by which calls are tried again."""

from __future__ import annotations

from enum import Enum, auto

import grpc

from muster_client.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    InvalidRequest,
    MusterError,
    PermissionDenied,
    ServerError,
    Unreachable,
)
from muster_client.wire.http2.answers import NOT_SENT

Code = grpc.StatusCode


class Verdict(Enum):
    """Of an attempt that failed."""

    REFUSED = auto()  # certainly not done: any request is tried again, elsewhere
    STALE_TOKEN = auto()  # certainly not done: authenticate, then try again
    UNKNOWN = auto()  # it may be done: only what can be repeated is tried again
    FINAL = auto()  # the server's answer


TOO_MANY = "etcdserver: too many requests"
# The requests that met these never came to the log. Texts are whole, or end with *
REFUSED: dict[str, str] = {
    f"{NOT_SENT}*": "there was no connection, or the server has not looked at it",
    "etcdserver: no leader": "the member looked for a leader first",
    TOO_MANY: "the member was too far behind to take it",
    "etcdserver: rpc not supported for learner": "a learner takes none",
    "raft proposal dropped": "the leader hands its office on, or there is none",
}
STALE_TOKEN: dict[str, str] = {
    "etcdserver: invalid auth token": "judged before the request is applied",
    "etcdserver: revision of auth store is old": "judged before the request is applied",
    "etcdserver: user name is empty": "users were enabled after this client connected",
}
UNKNOWN: dict[grpc.StatusCode, str] = {
    Code.UNAVAILABLE: "the connection ended, or the server stopped or timed out",
    Code.DEADLINE_EXCEEDED: "no answer in time",
    Code.CANCELLED: "the server ended it",
    Code.INTERNAL: "the stream was reset",
    Code.ABORTED: "a proxy ended it",
}
_UNKNOWN_TEXTS = frozenset({"etcdserver: request cancelled"})  # of code UNKNOWN
# The server's own texts begin so. Others are gRPC's or a proxy's, of a stream that ended somewhere on the way
PREFIXES = (
    "etcdserver: ", "muster: ", "mvcc: ", "auth: ", "bcrypt: ", "election: ", "mutex: ",
    "grpc: received message larger than max")


def judge(code: grpc.StatusCode, details: str) -> Verdict:
    """The verdict on an attempt, by its status."""
    if _named(details, REFUSED):
        return Verdict.REFUSED
    if _named(details, STALE_TOKEN):
        return Verdict.STALE_TOKEN
    if code in UNKNOWN or details in _UNKNOWN_TEXTS:
        return Verdict.UNKNOWN
    named = details.startswith(PREFIXES) or code is Code.UNIMPLEMENTED
    return Verdict.FINAL if named else Verdict.UNKNOWN


def passes(error: MusterError) -> bool:
    """Whether another attempt at what can be repeated may not meet this error."""
    return isinstance(error, Unreachable | DeadlineExceeded) or (
        isinstance(error, ServerError)
        and judge(error.code, error.message) in (Verdict.REFUSED, Verdict.UNKNOWN))


def is_stale(error: MusterError) -> bool:
    """Whether it is the token's fault."""
    return isinstance(error, ServerError) and judge(error.code, error.message) is Verdict.STALE_TOKEN


def is_final(error: MusterError) -> bool:
    """Whether waiting does not help: an operator must change the user, its rights or the request."""
    final = isinstance(error, PermissionDenied | AuthenticationFailed | InvalidRequest) and not passes(error)
    # a token may be stale again and again; that there is no user stays so
    return final and (isinstance(error, PermissionDenied) or not is_stale(error))


def _named(details: str, texts: dict[str, str]) -> bool:
    return any(details == text or (text[-1] == "*" and details.startswith(text[:-1])) for text in texts)
