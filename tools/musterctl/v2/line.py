"""How a line of the v2 API is split, with the rules and error texts of etcdctl's Go libraries.

One or two dashes mean the same. Options of a command may stand before or after its arguments; global ones
stand before the command. In etcdctl a switch may swallow the next word (``mk --in-order q x --ttl 5`` stores
``--ttl``); here it never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster import gotext
from tools.musterctl import values
from tools.musterctl.values import Typed, Value


class LineError(Exception):
    """The message is for the user."""


class DoubledError(LineError):
    """One option by two of its names."""


@dataclass(slots=True, frozen=True)
class Option:
    """Kinds: bool, int, string, duration (in nanoseconds), list."""

    names: tuple[str, ...]
    kind: str
    usage: str
    default: str = ""

    @property
    def initial(self) -> Value:
        if self.default:
            return self.parse(self.default)
        if self.kind == "list":
            return []
        return False if self.kind == "bool" else ""

    def parse(self, text: str) -> Value:
        """GoError."""
        return [text] if self.kind == "list" else values.parse(self.kind, text)


HELP = Option(("help", "h"), "bool", "show help")


class Values(Typed):
    """The options of one part of the line."""

    def __init__(self, options: Sequence[Option]) -> None:
        self._options = options
        self._found: dict[str, Value] = {}
        self._named: dict[str, list[str]] = {}

    def take(self, option: Option, name: str, text: str, given: bool = True) -> None:
        """Set an option by one of its names. LineError."""
        try:
            value = option.parse(text)
        except gotext.GoError as error:
            reason = "value out of range" if "out of range" in str(error) else "parse error"
            what = "boolean value" if option.kind == "bool" else "value"
            of = "" if option.kind == "bool" else "flag "
            raise LineError(f"invalid {what} {gotext.quote(text)} for {of}-{name}: {reason}") from None
        key = option.names[0]
        before = self._found.get(key)
        if isinstance(value, list) and isinstance(before, list):
            value = before + value
        self._found[key] = value
        if given and name not in (names := self._named.setdefault(key, [])):
            names.append(name)

    def check(self) -> None:
        """DoubledError if an option is given by two names."""
        for option in self._options:
            used = [name for name in option.names if name in self._named.get(option.names[0], ())]
            if len(used) > 1:
                raise DoubledError(f"Cannot use two forms of the same flag: {used[1]} {used[0]}")

    def value(self, name: str) -> Value:
        """By the option's first name."""
        return self._found.get(name, next(o for o in self._options if o.names[0] == name).initial)


def options_first(options: Sequence[Option], words: Sequence[str]) -> list[str]:
    """The words with known options and their values before the arguments; nothing moves behind ``--``."""
    moved: list[str] = []
    rest: list[str] = []
    takes = False
    for at, word in enumerate(words):
        if word == "--":
            rest.extend(words[at:])
            break
        if takes and not word.startswith("-"):
            takes = False
            moved.append(word)
        elif (option := _named(options, word)) is not None:
            moved.append(word)
            takes = "=" not in word and option.kind != "bool"
        else:
            rest.append(word)
    return moved + rest


def _named(options: Sequence[Option], word: str) -> Option | None:
    if not word.startswith("-") or word in ("-", "--"):
        return None
    name = word.removeprefix("-").removeprefix("-").split("=")[0]
    return next((option for option in options if name in option.names), None)


def parse(options: Sequence[Option], words: Sequence[str]) -> tuple[Values, list[str]]:
    """The options at the start of the words, and the words from the first argument on. LineError."""
    values = Values(options)
    rest = list(words)
    while rest:
        word = rest[0]
        if len(word) < 2 or word[0] != "-":
            break
        rest.pop(0)
        if word == "--":
            break
        name, equals, text = word[2 if word[1] == "-" else 1 :].partition("=")
        if not name or name[0] == "-":
            raise LineError(f"bad flag syntax: {word}")
        option = next((option for option in options if name in option.names), None)
        if option is None:
            raise LineError(f"flag provided but not defined: -{name}")
        if not equals:
            if option.kind == "bool":
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise LineError(f"flag needs an argument: -{name}")
        values.take(option, name, text)
    values.check()
    return values, rest
