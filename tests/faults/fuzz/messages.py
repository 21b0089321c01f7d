"""Requests of every gRPC method: made from the protobuf descriptors, mutated, or raw."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cluster.pb import election_pb2, lock_pb2, rpc_pb2, shards_pb2
from cluster.wire.protobuf import varint

_AUTH = {
    f"{what}{verb}": f"Auth{what}{verb}" for what, verbs in (
        ("User", ("Add", "Get", "List", "Delete", "ChangePassword", "GrantRole", "RevokeRole")),
        ("Role", ("Add", "Get", "List", "Delete", "GrantPermission", "RevokePermission"))) for verb in verbs}
_NAMED_OTHERWISE = {"RangeStream": "Range", "Compact": "Compaction", **_AUTH}
_SERVICES = {
    "KV": ("Range", "RangeStream", "Put", "DeleteRange", "Txn", "Compact"),
    "Watch": ("Watch",),
    "Lease": ("LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"),
    "Cluster": ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"),
    "Maintenance": ("Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"),
    "Auth": ("AuthEnable", "AuthDisable", "AuthStatus", "Authenticate", *_AUTH),
}
#: Every method, and the message that it takes; None: bytes of no message that is known here.
METHODS: dict[str, type[Message] | None] = {
    **{f"/etcdserverpb.{service}/{name}": getattr(rpc_pb2, f"{_NAMED_OTHERWISE.get(name, name)}Request")
       for service, names in _SERVICES.items() for name in names},
    **{f"/v3lockpb.Lock/{name}": getattr(lock_pb2, f"{name}Request") for name in ("Lock", "Unlock")},
    **{f"/v3electionpb.Election/{name}": getattr(election_pb2, f"{name}Request")
       for name in ("Campaign", "Proclaim", "Leader", "Resign")},
    **{f"/musterpb.Shards/{name}": getattr(shards_pb2, f"{name}Request") for name in (
        "EnableGrowth", "AddShard", "RetireShard", "Move", "Split", "CancelMove", "Moves", "Advice")},
    "/grpc.health.v1.Health/Check": None, "/grpc.health.v1.Health/Watch": None, "/a.B/c": None,
}
#: Those that do most are asked most.
WEIGHTS = [
    12
    if ".KV/" in path
    else 6
    if ".Lease/" in path or ".Watch/" in path or path.endswith(("Alarm", "HashKV"))
    else 1
    for path in METHODS
]
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_TYPE = FieldDescriptor


def requests(r: Random) -> tuple[str, list[bytes]]:
    """A method, and what is sent to it: one message, or a few where it takes a stream."""
    path = r.choices(list(METHODS), WEIGHTS)[0]
    several = (
        r.randint(1, 5) if path.endswith(("Watch", "LeaseKeepAlive")) else r.choices((1, 0, 2), (40, 1, 1))[0]
    )
    return path, [_body(r, METHODS[path]) for _ in range(several)]


def _body(r: Random, kind: type[Message] | None) -> bytes:
    what = r.random()
    if kind is None or what < 0.1:
        return r.randbytes(r.choice((0, 1, 2, 5, 20, 300)))
    if what < 0.12:
        return _deep(r)
    body = made(r, kind).SerializeToString()
    return mutated(r, body) if what < 0.35 else body


def made(r: Random, kind: type[Message], depth: int = 0) -> Any:
    """A message of this kind, of fields by chance, some of them far out of their range."""
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if r.random() < (0.45 if depth else 0.6):
            _fill(r, message, field, depth)
    return message


def _fill(r: Random, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.is_repeated:
        of = getattr(message, field.name)
        many = r.choices((1, 2, 3, 130, 600), (8, 6, 4, 1, 1 if depth < 2 else 0))[0]
        for _ in range(many if depth < 3 else 1):
            if field.message_type is not None:
                of.add().CopyFrom(made(r, GetMessageClass(field.message_type), depth + 1))
            else:
                of.append(_scalar(r, field))
    elif field.message_type is not None:
        if depth < 5:
            inner = getattr(message, field.name)
            inner.CopyFrom(made(r, type(inner), depth + 1))
            inner.SetInParent()
    else:
        setattr(message, field.name, _scalar(r, field))


def _scalar(r: Random, field: FieldDescriptor) -> Any:
    if field.cpp_type == _TYPE.CPPTYPE_ENUM:
        known = [value.number for value in field.enum_type.values]
        return r.choice((*known, *known, *known, 7, 100, 300, -1, (1 << 31) - 1, -(1 << 31)))
    if field.cpp_type == _TYPE.CPPTYPE_BOOL:
        return r.random() < 0.5
    if field.cpp_type == _TYPE.CPPTYPE_STRING:
        if field.type == _TYPE.TYPE_BYTES:
            return _bytes(r)
        return r.choice(("", "a", "http://127.0.0.1:1", "x" * 300, "\0", "ü€𝄞"))
    low, high = _INTEGERS[field.cpp_type]
    return max(
        low,
        min(
            high,
            r.choice(
                (0, 0, 1, 2, 3, 5, 60, r.randint(0, 200), -1, -2, 1 << 31, 1 << 53, low, high, high - 1)
            ),
        ),
    )


def _bytes(r: Random) -> bytes:
    key: bytes = r.choice(
        (
            b"", b"\0", b"\xff", b"a", b"b", b"/d/e/%d" % r.randrange(20), b"/x/%d/y" % r.randrange(20),
            b"k%d" % r.randrange(9),
        )
    )
    return r.choices(
        (key, key + b"\0", key * 200, r.randbytes(r.randint(0, 40)), bytes(200_000)), (20, 2, 2, 3, 0.1)
    )[0]


def _deep(r: Random) -> bytes:
    """A transaction in a transaction, many times over."""
    body = rpc_pb2.TxnRequest(success=[{"request_put": {"key": b"deep", "value": b"v"}}]).SerializeToString()
    for _ in range(r.choice((3, 20, 99, 100, 101, 5000))):
        op = b"\x22" + varint(len(body)) + body
        body = b"\x12" + varint(len(op)) + op
        if len(body) > 100_000:
            break
    return body


def mutated(r: Random, data: bytes) -> bytes:
    """The same after something has happened to it."""
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 5))):
        at = r.randint(0, len(out))
        what = r.randrange(5)
        if what == 0 and at < len(out):
            out[at] ^= 1 << r.randrange(8)
        elif what == 1 and at < len(out):
            out[at] = r.choice((0, 0x7F, 0x80, 0xFF, r.randrange(256)))
        elif what == 2:
            del out[at:]
        elif what == 3:
            del out[at : at + r.randint(1, 9)]
        else:
            out[at:at] = r.choice(
                (b"\xff" * 9, b"\xff\xff\xff\xff\x0f", r.randbytes(r.randint(1, 9)), bytes(out[:20]))
            )
    return bytes(out)
