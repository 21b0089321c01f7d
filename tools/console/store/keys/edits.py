"""Changes of keys. Each says what it expects: nothing that another user wrote meanwhile is overwritten."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import muster_client as m
from muster_client import Client, KeyValue

_AROUND = 3  # lines around a difference
_MOST_LINES, _MOST_PAIRS = 4000, 200_000  # that are compared: the time for it grows with their square


class Overtaken(Exception):
    """Another client was quicker. ``kv``: the key as it is now, None: it is gone."""

    def __init__(self, key: bytes, kv: KeyValue | None) -> None:
        super().__init__(key)
        self.key, self.kv = key, kv


async def save(client: Client, key: bytes, value: bytes, *, seen: int) -> int:
    """Write a key as it was seen: ``seen`` is its ``mod_revision``, 0: it did not exist. Its lease stays. The
    new revision; Overtaken."""
    condition = m.key(key).mod_revision == seen
    done = (
        await client.when(condition).then(m.put(key, value, lease=None if seen else 0)).otherwise(m.get(key))
    )
    if not done:
        raise Overtaken(key, done.found().kv)
    return done.revision


async def remove(client: Client, key: bytes, *, seen: int) -> int:
    """Delete a key as it was seen. The new revision; Overtaken."""
    done = await client.when(m.key(key).mod_revision == seen).then(m.delete(key)).otherwise(m.get(key))
    if not done:
        raise Overtaken(key, done.found().kv)
    return done.revision


@dataclass(frozen=True, slots=True)
class Removal:
    """What a delete of a prefix would remove: how many keys, and the first of them."""

    prefix: bytes
    count: int
    first: tuple[bytes, ...]
    revision: int


async def removal(client: Client, prefix: bytes, *, first: int = 10) -> Removal:
    """Look before a delete."""
    pages = client.range(m.prefix(prefix), page=first, keys_only=True)
    kv = await pages.next()
    found: list[bytes] = []
    while kv is not None:
        found.append(kv.key)
        kv = pages.waiting()
    return Removal(prefix, pages.count, tuple(found), pages.revision)


async def remove_prefix(client: Client, prefix: bytes) -> int:
    """Delete all keys that begin so; how many there were."""
    return (await client.delete(m.prefix(prefix))).deleted


async def duplicate(client: Client, source: bytes, target: bytes, *, move: bool = False) -> None:
    """Copy a key, with its lease; ``move``: and delete the source, at once. Overtaken, ValueError."""
    if not target or source == target:
        raise ValueError("the new name is empty, or the old one")
    kv = await client.get(source)
    if kv is None:
        raise Overtaken(source, None)
    ops = [m.put(target, kv.value, lease=kv.lease), *([m.delete(source)] if move else [])]
    conditions = m.key(source).mod_revision == kv.mod_revision, m.key(target).absent
    done = await client.when(*conditions).then(*ops).otherwise(m.get(target))
    if not done:
        raise Overtaken(target, done.found().kv)


Line = tuple[Literal[" ", "-", "+", "@", "\\"], str]


def diff(old: str, new: str) -> list[Line]:
    """The lines that differ, with three around them. Behind a last line that alone has no line feed: a
    backslash."""
    found: list[Line] = []
    for line in list(_compared(_lines(old, new), _lines(new, old)))[2:]:
        match line[:1]:
            case "-" | "+" | " " as sign:
                found.append((sign, line[1:].removesuffix("\n")))
                found += [("\\", "")] if line.endswith("\n") else []
            case _ if found:
                found.append(("@", ""))
    return found


def _compared(old: list[str], new: list[str]) -> Iterable[str]:
    """What differs, as ``diff -u`` writes it. What takes long to compare differs in each line."""
    head = _same(old, new)
    tail = _same(old[head:][::-1], new[head:][::-1])
    first = max(0, head - _AROUND)
    old, new = (one[first : len(one) - max(0, tail - _AROUND)] for one in (old, new))
    counts = Counter(old)
    if len(old) + len(new) > _MOST_LINES or sum(counts[line] for line in new) > _MOST_PAIRS:
        return ["---", "+++", *(f"-{line}" for line in old), *(f"+{line}" for line in new)]
    return difflib.unified_diff(old, new, lineterm="", n=_AROUND)


def _same(one: list[str], other: list[str]) -> int:
    """With how many lines both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _lines(text: str, other: str) -> list[str]:
    """Lines by line feeds. The last one keeps one where the other text alone ends with one."""
    lines = text.split("\n")
    if not lines[-1]:
        return lines[:-1]
    return [*lines[:-1], f"{lines[-1]}\n"] if other.endswith("\n") else lines
