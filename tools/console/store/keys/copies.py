"""Keys as a file, and back: JSON or YAML."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any, Literal

import muster_client as m
import yaml
from muster_client import Client, KeyRange, Op

from tools.console.names import key_of, shown
from tools.console.store.keys.values import DUMPER, NO_YAML, Loader

FileForm = Literal["json", "yaml"]
MOST_KEYS = 100_000
MOST_BYTES = 64 * 1024 * 1024
_MOST_EVENTS = 6 * MOST_KEYS + 16  # of YAML: a mapping of key and value for each key
_TXN_KEYS = 100  # of an import; a store takes 128 operations
_TXN_BYTES = 1024 * 1024  # and 1.5 MiB. A larger value has a transaction of its own

Pair = tuple[bytes, bytes]


class Malformed(ValueError):
    """The file is none of ours."""


class TooLarge(Exception):
    """More than a browser takes: ``muster`` backups and ``etcdctl make-mirror`` have no such bound."""


async def export(client: Client, keys: KeyRange, form: FileForm, revision: int = 0) -> bytes:
    """All keys of a range as of one revision. TooLarge."""
    pairs: list[Pair] = []
    size = 0
    async for kv in client.range(keys, revision=revision):
        pairs.append((kv.key, kv.value))
        size += len(kv.key) + len(kv.value)
        if len(pairs) > MOST_KEYS or size > MOST_BYTES:
            raise TooLarge
    return await asyncio.to_thread(written, pairs, form)


def written(pairs: Sequence[Pair], form: FileForm) -> bytes:
    """The file of some keys: a list of key and value, or ``value_base64`` where that is no text."""
    rows = [{"key": shown(key), **_value(value)} for key, value in pairs]
    if form == "json":
        return json.dumps(rows, indent=1, ensure_ascii=False).encode()
    text: str = yaml.dump(rows, Dumper=DUMPER, allow_unicode=True, sort_keys=False)
    return text.encode()


def _value(value: bytes) -> dict[str, str]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}
    if all(char.isprintable() or char in "\n\t" for char in text):
        return {"value": text}
    return {"value_base64": base64.b64encode(value).decode()}


def parsed(file: bytes) -> list[Pair]:
    """The keys of a file that :func:`written` made, in JSON or YAML. Malformed."""
    try:
        text = file.decode()
        is_json = text.lstrip()[:1] == "["
        if not is_json:  # first: each node takes a kilobyte
            _bound(sum(1 for _ in islice(yaml.parse(text, Loader), _MOST_EVENTS + 1)), _MOST_EVENTS)
        rows = json.loads(text, object_pairs_hook=_rows()) if is_json else yaml.load(text, Loader)
    except Malformed:
        raise
    except NO_YAML as error:
        raise Malformed(str(error)) from None
    if not isinstance(rows, list):
        raise Malformed("the file has no list of keys")
    _bound(len(rows), MOST_KEYS)
    pairs, size = list[Pair](), 0
    for row in rows:
        pairs.append(_pair(row))
        size += sum(map(len, pairs[-1]))
        _bound(size, MOST_BYTES)  # aliases may give many keys one large value
    return pairs


def _rows() -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Makes each object of a JSON file, so many at most: Malformed ends the reading."""
    number = count(1)

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _bound(next(number), MOST_KEYS)
        return dict(pairs)

    return made


def _bound(found: int, most: int) -> None:
    if found > most:
        raise Malformed("the file has more than 100,000 keys or 64 MiB")


def _pair(row: Any) -> Pair:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not row["key"]:
        raise Malformed("an item has no key")
    try:
        key = key_of(row["key"])
    except UnicodeEncodeError as error:
        raise Malformed(str(error)) from None
    text, coded = row.get("value"), row.get("value_base64")
    try:
        if isinstance(text, str):
            return key, text.encode()
        if isinstance(coded, str):
            return key, base64.b64decode(coded, validate=True)
    except ValueError as error:
        raise Malformed(f"key {row['key']}: {error}") from None
    raise Malformed(f"key {row['key']} has no value")


async def load(client: Client, pairs: Sequence[Pair]) -> int:
    """Write keys, in transactions as large as a store takes; how many. Each transaction is whole, the file is
    not."""
    last = dict(pairs)
    some: list[Op] = []
    size = 0
    for key, value in last.items():
        op = m.put(key, value)
        if some and (len(some) == _TXN_KEYS or size + op.request.ByteSize() > _TXN_BYTES):
            await client.when().then(*some)
            some, size = [], 0
        some.append(op)
        size += op.request.ByteSize()
    if some:
        await client.when().then(*some)
    return len(last)
