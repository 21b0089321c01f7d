"""Values of flags and options, by kind: bool, int, string, duration (in nanoseconds), list."""

from __future__ import annotations

from cluster import gotext

Value = bool | int | str | list[str]


def parse(kind: str, text: str) -> Value:
    """Of any kind but list. GoError."""
    if kind == "bool":
        return gotext.parse_bool(text)
    if kind == "int":
        return gotext.parse_int(text, 0)
    return gotext.parse_duration_ns(text) if kind == "duration" else text


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
