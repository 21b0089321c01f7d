"""The put that nearly all are: a key of 1 to 127 bytes, perhaps a value below 16 KiB, each once and in order.

Hot path: such a request is recognised by its bytes, and its fields are spliced into the effect and the
KeyValue. Whatever is odd about a request, say a length in more bytes than it needs, is left to the parser
(``tests/unit/semantics/test_put.py``).
"""

from __future__ import annotations

from cluster.effects import records
from cluster.evaluate.view import Current, Version, View, version_of
from cluster.wire.protobuf import varint

Put = tuple[bytes, Version, tuple[bytes, ...]]  # key, what it is then, its item of the record in pieces

_PUT, _PUT_NEW, _PUT_REF = map(int, (records.Item.PUT, records.Item.PUT_NEW, records.Item.PUT_REF))
_PENDING = records.PENDING_REVISION
_pack_put = records.PUT_HEAD.pack
_FIXED = records.PUT_FIXED
_LONGEST = 0x4000 + 2  # bytes behind the key: of a value's tag and length, and the value
# how a value field that fills so many bytes begins: one look instead of five (0.1 us less)
_beginnings: dict[int, bytes] = {0: b""}
# KeyValue's version field and the tag of the value behind it
_versions = [b"\x20%b\x2a" % varint(number) for number in range(1024)]


def key_end(request: bytes) -> int:
    """Where the key of such a put ends; 0: the request must be parsed. 0.2 us."""
    size = len(request)
    if size < 3 or request[0] != 0x0A:
        return 0
    key_len = request[1]
    end = key_len + 2
    rest = size - end
    if not 0 < key_len < 0x80 or not 0 <= rest <= _LONGEST:
        return 0
    beginning = _beginnings.get(rest)
    if beginning is None:
        beginning = _beginnings[rest] = _beginning(rest)
    return end if request.startswith(beginning, end) else 0


def _beginning(rest: int) -> bytes:
    """Tag and length of a value field of ``rest`` bytes; where there is none, bytes that no such field begins
    with."""
    for head in (2, 3):
        value_len = rest - head
        if value_len > 0 and len(varint(value_len)) == head - 1:
            return b"\x12" + varint(value_len)
    return bytes(rest + 1)  # longer than the request


def key_of(request: bytes) -> bytes | None:
    """The key of such a put; None: the request must be parsed, which takes 2 us."""
    end = key_end(request)
    return request[2:end] if end else None


def evaluate(view: View, request: bytes) -> Put | None:
    """What such a put does at the revision after the view's; None: it must be parsed."""
    end = key_end(request)
    if not end or len(request) == end:
        return None
    key = request[2:end]
    version, item = effect(request, end, view.current(key), view.revision + 1)
    return key, version, item


def written(request: bytes, end: int, current: Current | Version | None, revision: int) -> Version:
    """The key's version at ``revision``, after a request with a value whose key ends at ``end``."""
    mod = varint(revision)
    head, value = request[:end], request[end + 1 :]
    if current is None:
        kv = b"".join((head, b"\x10", mod, b"\x18", mod, b"\x20\x01\x2a", value))
        return version_of((revision, revision, 1, 0, kv))
    create, number = current[0], current[2] + 1
    version_field = _versions[number] if number < 1024 else b"\x20%b\x2a" % varint(number)
    if create < _PENDING:
        kv = b"".join((head, b"\x10", varint(create), b"\x18", mod, version_field, value))
    else:
        kv = b"".join((head, b"\x18", mod, version_field, value))
    return version_of((create, revision, number, 0, kv))


def pending(
    request: bytes, end: int, current: Current | Version | None, revision: int
) -> tuple[Version, int, bytes, bytes]:
    """The key's version at a pending revision, the item's kind, and the KeyValue before and after its
    revisions, of a request with a value whose key ends at ``end``. The version has the latter part alone:
    see ``cluster.order.leading.bound``."""
    if current is None:
        tail = b"\x20\x01\x2a" + request[end + 1 :]
        return version_of((revision, revision, 1, 0, tail)), _PUT_NEW, request[:end], tail
    create, number = current[0], current[2] + 1
    tail = (_versions[number] if number < 1024 else b"\x20%b\x2a" % varint(number)) + request[end + 1 :]
    version = version_of((create, revision, number, 0, tail))
    if create < _PENDING:
        return version, _PUT, b"%b\x10%b" % (request[:end], varint(create)), tail
    return version, _PUT_REF, request[:end], tail


def effect(
    request: bytes, end: int, current: Current | Version | None, revision: int
) -> tuple[Version, tuple[bytes, ...]]:
    """The key's version, and the item in pieces, of a request with a value whose key ends at ``end``."""
    _, kind, head, tail = pending(request, end, current, revision)
    item = _pack_put(kind, _FIXED + len(head) + len(tail), end - 2, len(head), 0)
    return written(request, end, current, revision), (item, head, tail)
