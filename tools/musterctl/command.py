"""How a command line is matched to a command and its flags, with etcdctl's rules and error texts.

Flags may stand anywhere; ``--`` ends them; commands may be cut to a unique prefix. The command is found
first, skipping what looks like flags; then its own table parses them. So ``--unknown get a`` complains about
the command ``a``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cluster import gotext
from tools.client.exits import Exit as Exit
from tools.musterctl.values import Typed, Value, fields, parse


class FlagError(Exception):
    """The message is for the user."""


class UnknownCommand(FlagError):
    """``unknown command …``, and that word."""

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


@dataclass(slots=True, frozen=True)
class Flag:
    """Kinds: bool, int, uint, string, duration (in nanoseconds), list."""

    name: str
    kind: str
    default: str
    usage: str
    short: str = ""
    newer: bool = False  # than etcdctl 3.5, whose help lacks it
    own: bool = False  # no etcdctl has it

    def parse(self, value: str) -> Value:
        """GoError."""
        if self.kind == "list":
            return fields(value) if value else []
        return parse(self.kind, value)

    @property
    def initial(self) -> Value:
        return self.parse(self.default)

    @property
    def shown_default(self) -> str:
        """The default as help texts show it."""
        return f"[{self.default}]" if self.kind == "list" else self.default


def switch(name: str, usage: str, short: str = "", *, on: bool = False) -> Flag:
    """A bool flag; ``on``: by default."""
    return Flag(name, "bool", "true" if on else "false", usage, short)


def number(name: str, usage: str, *, newer: bool = False) -> Flag:
    """A whole number, 0 by default."""
    return Flag(name, "int", "0", usage, newer=newer)


class Flags(Typed):
    """The values of one parsed command line."""

    def __init__(self, table: Sequence[Flag]) -> None:
        self._table = {flag.name: flag for flag in table}
        self._shorts = {flag.short: flag for flag in table if flag.short}
        self._values: dict[str, Value] = {}
        self.given: set[str] = set()

    def set(self, flag: Flag, value: str) -> None:
        """Take ``value`` for ``flag``; a list flag given again grows."""
        try:
            parsed = flag.parse(value)
        except gotext.GoError as error:
            shown = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
            raise FlagError(f'invalid argument {gotext.quote(value)} for "{shown}" flag: {error}') from None
        before = self._values.get(flag.name)
        if isinstance(parsed, list) and isinstance(before, list):
            parsed = before + parsed
        self._values[flag.name] = parsed
        self.given.add(flag.name)

    def value(self, name: str) -> Value:
        return self._values.get(name, self._table[name].initial)

    def parse(self, args: Sequence[str]) -> list[str]:
        """Take all flags out of ``args``; the rest. FlagError names the first bad one."""
        rest: list[str] = []
        queue = iter(args)
        for arg in queue:
            if arg == "--":
                rest.extend(queue)
            elif len(arg) < 2 or arg[0] != "-":
                rest.append(arg)
            elif arg.startswith("--"):
                self._long(arg, queue)
            else:
                self._shorthands(arg, queue)
        return rest

    def _long(self, arg: str, queue: Iterator[str]) -> None:
        name, equals, value = arg[2:].partition("=")
        if not name or name[0] == "-":
            raise FlagError(f"bad flag syntax: {arg}")
        flag = self._table.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: --{name}")
        if not equals:
            following = "true" if flag.kind == "bool" else next(queue, None)
            if following is None:
                raise FlagError(f"flag needs an argument: {arg}")
            value = following
        self.set(flag, value)

    def _shorthands(self, arg: str, queue: Iterator[str]) -> None:
        letters = arg[1:]
        while letters:
            flag = self._shorts.get(letters[0])
            if flag is None:
                raise FlagError(f"unknown shorthand flag: {letters[0]!r} in -{letters}")
            if letters[1:2] == "=" and len(letters) > 2:  # as pflag, which takes a lone one for no separator
                return self.set(flag, letters[2:])
            if flag.kind == "bool":
                self.set(flag, "true")
                letters = letters[1:]
                continue
            value: str | None = letters[1:] or next(queue, None)
            if value is None:
                raise FlagError(f"flag needs an argument: {letters[0]!r} in {arg}")
            return self.set(flag, value)


@dataclass(slots=True)
class Command:
    use: str
    short: str
    run: str = ""  # "module:function" in this package, imported when it runs
    flags: tuple[Flag, ...] = ()
    inherited: tuple[Flag, ...] = ()  # by its subcommands
    long: str = ""
    children: list[Command] = field(default_factory=list)
    parent: Command | None = None
    of_etcdctl: bool = True  # which has it, too

    def __post_init__(self) -> None:
        for child in self.children:
            child.parent = self

    @property
    def name(self) -> str:
        return self.use.split(" ", 1)[0]

    def path(self, with_root: bool = True) -> str:
        """Such as ``musterctl lease grant``."""
        words, at = [], self
        while at.parent is not None:
            words.append(at.name)
            at = at.parent
        if with_root or not words:
            words.append(at.name)
        return " ".join(reversed(words))

    def all_flags(self) -> list[Flag]:
        """Every flag it takes, its own first."""
        return [*self.local_flags(), *self.global_flags()]

    def local_flags(self) -> list[Flag]:
        """Its own flags by name, with ``--help``."""
        own = [*self.flags, *self.inherited, Flag("help", "bool", "false", f"help for {self.name}", "h")]
        return sorted(own, key=lambda flag: flag.name)

    def global_flags(self) -> list[Flag]:
        """The flags of the commands above, by name."""
        above: list[Flag] = []
        at = self.parent
        while at is not None:
            above += at.inherited
            at = at.parent
        return sorted(above, key=lambda flag: flag.name)

    def child(self, word: str) -> Command | None:
        """The subcommand that ``word`` names, or is a prefix of: unique, or so among etcdctl's."""
        named = [c for c in self.children if c.name == word]
        starting = named or [c for c in self.children if c.name.startswith(word)]
        if len(starting) > 1:
            starting = [c for c in starting if c.of_etcdctl]
        return starting[0] if len(starting) == 1 else None


@dataclass(slots=True)
class Invocation:
    command: Command
    flags: Flags
    args: list[str]  # without flags
    line: list[str]  # everything after the program's name, as typed


def find(root: Command, args: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that ``args`` name, and the other words. UnknownCommand."""
    at, rest = root, list(args)
    while True:
        words = _positions(at, rest)
        found = at.child(rest[words[0]]) if words else None
        if found is None:
            break
        del rest[words[0]]
        at = found
    if at is root and words:
        word = rest[words[0]]
        message = f'unknown command {gotext.quote(word)} for "{root.name}"{_suggestions(root, word)}'
        raise UnknownCommand(message, word)
    return at, rest


def _positions(command: Command, args: Sequence[str]) -> list[int]:
    """Where in ``args`` words are that are neither flags nor, as far as known, their values."""
    table = command.all_flags()
    bools = {f"--{f.name}" for f in table if f.kind == "bool"} | {
        f"-{f.short}" for f in table if f.kind == "bool"
    }
    found, at = [], 0
    while at < len(args):
        arg = args[at]
        if arg == "--":
            break
        if arg.startswith("--"):
            at += 1 if "=" in arg or arg in bools else 2
            continue
        if arg.startswith("-") and len(arg) > 1:
            at += 2 if len(arg) == 2 and arg not in bools else 1
            continue
        if arg:
            found.append(at)
        at += 1
    return found


def _suggestions(command: Command, word: str) -> str:
    near = [
        c.name
        for c in command.children
        if _distance(word.lower(), c.name.lower()) <= 2 or c.name.lower().startswith(word.lower())
    ]
    if not near:
        return ""
    return "\n\nDid you mean this?\n" + "".join(f"\t{name}\n" for name in near)


def _distance(left: str, right: str) -> int:
    """Levenshtein's."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
