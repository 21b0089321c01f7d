"""What one has to be allowed for a request, and what users and roles allow: by the plainest code, for
``order_users``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.features.auth.principal import Kind, Principal
from cluster.pb import auth_pb2

DENIED, EMPTY, TOKEN, OLD, NO_USER = (
    "etcdserver: permission denied",
    "etcdserver: user name is empty",
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name not found",
)
PERMISSION = frozenset((DENIED, EMPTY, TOKEN, OLD, NO_USER))
READ, WRITE, BOTH = auth_pb2.Permission.READ, auth_pb2.Permission.WRITE, auth_pb2.Permission.READWRITE
# "read", "write", likewise "hung read" and "hung write" for a key of a lease, "valid", "root", "named" for
# a client that has a name, "fresh" for no old token; key, range_end
Need = tuple[str, bytes, bytes]


@dataclass
class State:
    """Users and roles behind one record, or behind one item of it."""

    index: int  # of the record
    enabled: bool
    revision: int
    epoch: int
    users: dict[str, tuple[tuple[str, ...], int]]  # roles, and the auth revision of the last password
    roles: dict[str, tuple[tuple[bytes, bytes, int], ...]]
    names: frozenset[bytes] = frozenset()  # of the rows that made it what it is

    def says(self, who: Principal | None, need: Need) -> str | None:
        """The error that a client is told who wants this; None: he may."""
        if not self.enabled:
            return None
        if who is not None and who.kind == Kind.INVALID:
            return TOKEN
        name = "" if who is None else who.user
        user = self.users.get(name)
        if (
            who is not None
            and who.kind == Kind.SIMPLE
            and (user is None or who.revision < max(user[1], self.epoch))
        ):
            return TOKEN
        what, key, end = need
        if what == "named":
            return None if name else EMPTY
        if what.startswith("hung "):
            if user is not None and "root" in user[0]:
                return None
            what = what.removeprefix("hung ")
        old = who is not None and who.kind == Kind.JWT and who.revision < self.revision
        if what not in ("root", "valid") and old:
            return OLD
        if what == "fresh":
            return None
        if not name:
            return EMPTY
        if user is None:
            if what == "valid" and who is not None and who.kind == Kind.CERTIFICATE:
                return None
            return NO_USER if what == "root" else DENIED
        if "root" in user[0] or what == "valid":
            return None
        return DENIED if what == "root" or not self._covers(user[0], what, key, end) else None

    def _covers(self, roles: tuple[str, ...], what: str, key: bytes, end: bytes) -> bool:
        """Each key of the range is in some grant: the first one, and each at which a grant ends."""
        granted = [
            (start, _stop(start, upto))
            for role in roles
            for start, upto, kind in self.roles.get(role, ())
            if kind in (BOTH, READ if what == "read" else WRITE)
        ]
        stop = _stop(key, end)
        points = [
            key,
            *(
                upto
                for _, upto in granted
                if upto is not None and key < upto and (stop is None or upto < stop)
            ),
        ]
        held = all(
            any(start <= at and (upto is None or at < upto) for start, upto in granted) for at in points
        )
        return held and (stop is not None or any(upto is None for _, upto in granted))


def _stop(start: bytes, end: bytes) -> bytes | None:
    """The first key behind a range; None: it has no end."""
    return start + b"\0" if not end else None if end == b"\0" else end


def needs_of(method: str, request: Any, keys: list[bytes]) -> list[Need]:
    """What one has to be allowed. ``keys``: what hangs on the leases that it names."""
    if method == "Put":
        hung = keys if request.lease else []
        return [
            ("write", request.key, b""),
            *(("write", key, b"") for key in hung),
            *([("read", request.key, b"")] if request.prev_kv else []),
        ]
    if method == "DeleteRange":
        span = request.key, request.range_end
        return [("write", *span), *([("read", *span)] if request.prev_kv else [])]
    if method == "Range":
        return [("read", request.key, request.range_end)]
    if method == "Txn":
        found: list[Need] = [("fresh", b"", b"")]
        found += [("read", compare.key, compare.range_end) for compare in request.compare]
        for op in (*request.success, *request.failure):
            name = {"request_put": "Put", "request_delete_range": "DeleteRange", "request_range": "Range"}[
                op.WhichOneof("request")
            ]
            inner = getattr(op, op.WhichOneof("request"))
            found += needs_of(name, inner, keys)
        return found
    if method in ("LeaseRevoke", "LeaseKeepAlive"):
        return [("named", b"", b""), *(("hung write", key, b"") for key in keys)]
    if method in ("LeaseTimeToLive", "LeaseLeases"):
        return [
            ("valid" if method == "LeaseTimeToLive" else "named", b"", b""),
            *(("hung read", key, b"") for key in keys),
        ]
    return [("valid" if method == "LeaseGrant" else "root", b"", b"")]
