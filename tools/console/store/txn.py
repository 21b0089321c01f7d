"""A transaction as a form has it: conditions, and what is done if they hold, or if one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import muster_client as m
from muster_client import Client, Condition, Done, Found, Op, TxnResult

from cluster.gotext import quote
from tools.console.names import key_of, search, shown

TARGETS = ("value", "version", "create_revision", "mod_revision", "lease")
SIGNS = ("=", "!=", "<", ">")
KINDS = ("put", "get", "delete")
_MOST_SHOWN = 2000  # characters of a value
_ETCDCTL = {
    "value": "val",
    "version": "ver",
    "create_revision": "create",
    "mod_revision": "mod",
    "lease": "lease",
}


@dataclass(slots=True)
class Compare:
    """A condition. ``value``: text for a value, a number for anything else."""

    key: str = ""
    target: str = "mod_revision"
    sign: str = "="
    value: str = ""

    def condition(self) -> Condition:
        """As the library has it. ValueError."""
        prop = getattr(m.key(key_of(self.key)), self.target)
        value = key_of(self.value) if self.target == "value" else _number(self.value)
        made = {"=": prop == value, "!=": prop != value}.get(self.sign)
        if made is None:
            made = prop < value if self.sign == "<" else prop > value
        assert isinstance(made, Condition)
        return made

    def text(self) -> str:
        """As ``etcdctl txn`` reads it."""
        if self.target == "value":
            compared = quote(key_of(self.value))
        else:
            number = _number(self.value)
            compared = f'"{number:x}"' if self.target == "lease" else f'"{number}"'
        return f"{_ETCDCTL[self.target]}({quote(key_of(self.key))}) {self.sign} {compared}"


@dataclass(slots=True)
class Step:
    """An operation. ``get`` and ``delete`` take a key, or a range ``from..to``."""

    kind: str = "put"
    key: str = ""
    value: str = ""

    def op(self) -> Op:
        """As the library has it. ValueError."""
        if self.kind == "put":
            return m.put(key_of(self.key), key_of(self.value))
        keys = search(self.key) if ".." in self.key else key_of(self.key)
        return m.get(keys, limit=100) if self.kind == "get" else m.delete(keys)

    def text(self) -> str:
        """As ``etcdctl txn`` reads it."""
        name = self.kind.replace("delete", "del")
        if self.kind == "put":
            return _line(name, key_of(self.key), key_of(self.value))
        if ".." not in self.key:
            return _line(name, key_of(self.key))
        keys = search(self.key)
        if keys.end == b"\0":
            return _line(name, keys.start, flag="--from-key")
        return _line(name, keys.start, keys.end)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _line(name: str, *words: bytes, flag: str = "") -> str:
    """A request; words that begin with a dash would be taken for flags."""
    quoted = [quote(word) for word in words]
    dashed = any(word.startswith(b"-") for word in words)
    parts = [name, flag, "--", *quoted] if dashed else [name, *quoted, flag]
    return " ".join(part for part in parts if part)


@dataclass(slots=True)
class Form:
    """All of it."""

    tests: list[Compare] = field(default_factory=list)
    success: list[Step] = field(default_factory=lambda: [Step()])
    failure: list[Step] = field(default_factory=list)

    def txn(self) -> m.Txn:
        """As the library has it. ValueError."""
        return (
            m.when(*(one.condition() for one in self.tests))
            .then(*(one.op() for one in self.success))
            .otherwise(*(one.op() for one in self.failure))
        )

    def text(self) -> str:
        """The lines that ``etcdctl txn`` reads: an empty one ends each part."""
        parts = ([one.text() for one in self.tests], [one.text() for one in self.success],
                 [one.text() for one in self.failure])  # fmt: skip
        return "".join(f"{line}\n" for part in parts for line in (*part, ""))


async def send(client: Client, form: Form) -> tuple[TxnResult, list[str]]:
    """Run it; what it gave, also in lines. ValueError, MusterError."""
    kinds = [[one.kind for one in steps] for steps in (form.failure, form.success)]  # it may be edited now
    result = await client.txn(form.txn())
    return result, result_lines(result, kinds[result.succeeded])


def result_lines(result: TxnResult, kinds: Sequence[str]) -> list[str]:
    """What the operations of the branch gave, which are of these kinds."""
    lines: list[str] = []
    for one, kind in zip(result.results, kinds, strict=True):
        if isinstance(one, Found):
            lines += [
                f"{shown(kv.key)} = {_short(shown(kv.value))}  (mod {kv.mod_revision})" for kv in one.kvs
            ] or ["-"]
        elif isinstance(one, Done):
            lines.append(f"deleted {one.deleted}" if kind == "delete" else "OK")
    return lines


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
