"""Values of flags and options, by kind: bool, int, uint, string, duration (in nanoseconds), list."""

from __future__ import annotations

import re

from cluster import gotext

_QUOTED = re.compile('"((?:[^"]|"")*+)"')
_FIELD = re.compile(f'(?:{_QUOTED.pattern}|([^",\\n]*))(,|\\n|\\Z)')

Value = bool | int | str | list[str]


def parse(kind: str, text: str) -> Value:
    """Of any kind but list. GoError."""
    if kind == "bool":
        return gotext.parse_bool(text)
    if kind == "uint":
        return gotext.parse_uint(text, 0)
    if kind == "int":
        return gotext.parse_int(text, 0)
    return gotext.parse_duration_ns(text) if kind == "duration" else text


def fields(text: str) -> list[str]:
    """The fields of the first line of CSV, as etcdctl 3.5 reads and refuses them. GoError."""
    text = text.replace("\r\n", "\n").removesuffix("\r")
    at = len(text) - len(text.lstrip("\n"))
    if at == len(text):
        raise gotext.GoError("EOF")
    found, begins = [], at + 1
    while (one := _FIELD.match(text, at)) is not None:
        found.append(one[2] if one[1] is None else one[1].replace('""', '"'))
        at = one.end()
        if one[3] != ",":
            return found
    why = 'bare " in non-quoted-field'
    if text.startswith('"', at):
        why = 'extraneous or missing " in quoted-field'
        text = text.removesuffix("\n") + "\n"
        quoted = _QUOTED.match(text, at)
        at = quoted.end() - 1 if quoted is not None else len(text)
    else:
        at = text.index('"', at)
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at) - 1
    record = "" if line == begins else f"record on line {begins}; "
    raise gotext.GoError(f"{record}parse error on line {line}, column {column}: {why}")


class Typed:
    """Access by type to the values of one line."""

    def value(self, name: str) -> Value:
        raise NotImplementedError

    def switch(self, name: str) -> bool:
        value = self.value(name)
        assert isinstance(value, bool)
        return value

    def number(self, name: str) -> int:
        """An int, or a duration in nanoseconds."""
        value = self.value(name)
        assert isinstance(value, int)
        return value

    def string(self, name: str) -> str:
        value = self.value(name)
        assert isinstance(value, str)
        return value

    def strings(self, name: str) -> list[str]:
        value = self.value(name)
        assert isinstance(value, list)
        return value
