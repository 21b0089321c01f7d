"""Values of a flag table from command line, environment and file.

Precedence: ``--config-file`` alone, if given; else command line, MUSTER_* variables, ETCD_* variables,
defaults. The syntax is Go's: one dash or two, ``=`` or a blank, ``=`` for a boolean's value, ``--`` ends the
flags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import yaml

from cluster.gotext import parse_bool, quote
from cluster.members.urls import mistake
from tools.muster.config.kinds import AUTO, NUMBERS, Flag, Kind, Support
from tools.muster.config.values import (
    duration_ms,
    mistake_of_gates,
    mistake_of_number,
    mistake_of_origin,
    number,
)

# an empty value means the default, as at etcd: charts write flags without values
_EMPTY_IS_DEFAULT = (
    "auto-compaction-mode",
    "auto-compaction-retention",
    "backend-bbolt-freelist-type",
    "log-format",
    "log-level",
    "metrics",
    "tls-min-version",
)
# and an error elsewhere, or no host, as at etcd
_EMPTY_IN_FILE_IS_DEFAULT = (
    "cors", "discovery-fallback", "host-whitelist", "initial-cluster-state", "log-outputs", "proxy",
    "v2-deprecation")
_UNKNOWN_CHOICE = {  # etcd checks these behind the command line: another text, and exit code 1
    "auto-compaction-mode": 'unknown auto-compaction-mode "{}"; possible: periodic, revision',
    "log-format": "unknown log format: {}, supported values json, console",
    "logger": 'unknown logger option "{}"; possible: zap',
    "tls-min-version": 'unexpected TLS version "{}" (must be one of: TLS1.2, TLS1.3)',
    "tls-max-version": 'unexpected TLS version "{}" (must be one of: TLS1.2, TLS1.3)',
}
_MISTAKE_OF = {"cors": mistake_of_origin, "feature-gates": mistake_of_gates}
PACKAGED_DATA_DIR = "/var/lib/muster"  # the container image and the unit set ETCD_DATA_DIR to it
_OWN_VARIABLES = ("MUSTER_CI", "MUSTER_SOAK", "MUSTER_ENDPOINTS")  # of the tests, not flags


class UsageError(Exception):
    """An unknown flag or a value that cannot be read: exit code 2."""


class ConfigError(Exception):
    """A wrong setting: exit code 1."""


class _Loader(yaml.SafeLoader):
    """A scalar is text as it is written: ``0123`` and ``1.10`` may be names. Only null is none."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Quoted(str):
    """A scalar in quotes: for a duration it is no bare number."""


def _text(loader: _Loader, node: Any) -> str:
    text = str(loader.construct_scalar(node))
    return _Quoted(text) if node.style else text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


@dataclass(slots=True)
class Values:
    """Values by flag name; ``sources``: where each given one came from."""

    values: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)  # arguments after the flags
    warnings: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)  # by flag name: the one that it came from

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def is_set(self, name: str) -> bool:
        """Whether it was given, even with its default."""
        return name in self.sources


def convert(flag: Flag, text: str) -> Any:
    """The value of a text. ValueError."""
    kind = flag.kind
    if not text and (kind is Kind.URLS or flag.name in _EMPTY_IS_DEFAULT):
        text = flag.default
    if flag.name == "log-level":
        text = text.lower()
    if kind is Kind.BOOL:
        return parse_bool(text)
    if kind is Kind.COUNT and text == "auto":
        return AUTO
    if kind in NUMBERS:
        return number(text, kind)
    if kind is Kind.DURATION:
        return duration_ms(text)
    if flag.name == "host-whitelist":
        return tuple(text.split(","))  # as it stands, as etcd's: an empty text is the empty name
    if kind is Kind.URLS or kind is Kind.LIST:
        return _parts(text, kind)
    if kind is Kind.ENUM and text not in flag.choices:
        raise ValueError(text)
    return text


def _parts(text: str, kind: Kind) -> tuple[str, ...]:
    """An empty URL is told of later."""
    parts = tuple(map(str.strip, text.split(","))) if text else ()
    return parts if kind is Kind.URLS else tuple(filter(None, parts))


def parse_arguments(table: Mapping[str, Flag], args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """``(text by flag name, arguments after the flags)``. UsageError."""
    given: dict[str, str] = {}
    i = 0
    while i < len(args):
        arg = args[i]
        if len(arg) < 2 or arg[0] != "-":
            break
        i += 1
        if arg == "--":
            break
        name, equals, text = arg.lstrip("-").partition("=")
        if arg.startswith("---") or not name:
            raise UsageError(f"bad flag syntax: {arg}")
        if name in ("h", "help"):  # Go's package looks no further, and not at a value
            return {**given, "help": "true"}, list(args[i:])
        flag = table.get(name)
        if flag is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        if not equals:
            ignored = flag.support is Support.IGNORED  # etcd takes these for booleans
            if flag.kind is Kind.BOOL or (ignored and (i >= len(args) or args[i].startswith("-"))):
                text = "true"
            elif i >= len(args):
                raise UsageError(f"flag needs an argument: -{name}")
            else:
                text = args[i]
                i += 1
        with suppress(ConfigError):  # what is looked at later is the last one
            _value(flag, text, "flag", UsageError, f"flag -{name}")
        given[name] = f"{given[name]},{text}" if flag.adds and name in given else text
    return given, list(args[i:])


def _default(flag: Flag) -> Any:
    return convert(flag, flag.default)


def resolve(
    table: Mapping[str, Flag], args: Sequence[str], environ: Mapping[str, str], *, use_environ: bool = True
) -> Values:
    """All values of a table. UsageError for the command line's mistakes, ConfigError for others."""
    given, rest = parse_arguments(table, args)
    result = Values({f.name: _default(f) for f in table.values()}, rest=rest)
    for name, text in given.items():
        _set(result, table[name], text, "flag", UsageError, f"flag -{name}")
    if result["help"] or ("version" in table and result["version"]):
        return result
    config_file = given.get("config-file", "")
    if "config-file" in table and not config_file and use_environ:
        config_file = environ.get("MUSTER_CONFIG_FILE", "") or environ.get("ETCD_CONFIG_FILE", "")
    if config_file:
        result = _from_file(table, config_file)
        result.rest = rest
        beside = [f"--{name}" for name in given if name != "config-file"]
        if use_environ:
            beside += [v for v in _variables(table, environ) if not _is_packaged(result, v, environ[v])]
        result.warnings += [
            f"{what} is ignored: with a configuration file no other settings count" for what in beside
        ]
    elif use_environ:
        _from_environ(result, table, environ)
    _resolve_aliases(result, table)
    return result


def _set(result: Values, flag: Flag, text: str, source: str, error: type[Exception], where: str) -> None:
    result.values[flag.name] = _value(flag, text, source, error, where)
    result.sources[flag.name] = source


def _value(flag: Flag, text: str, source: str, error: type[Exception], where: str) -> Any:
    """:func:`convert` with an error that names flag, variable or key. ConfigError for some choices."""
    if source == "file" and not text and flag.name in _EMPTY_IN_FILE_IS_DEFAULT:
        text = flag.default
    what = f"invalid value {quote(text)} for {where}"
    if flag.kind is Kind.BOOL and source == "flag":  # Go's words for these
        what = f"invalid boolean value {quote(text)} for -{flag.name}"
    try:
        found = convert(flag, text)
    except ValueError as e:
        if flag.name in _UNKNOWN_CHOICE:
            raise ConfigError(_UNKNOWN_CHOICE[flag.name].format(text)) from None
        possible = ", ".join(c for c in flag.choices if c)
        why = f"invalid value; possible: {possible}" if possible else mistake_of_number(e, flag.kind)
        raise error(f"{what}: {why}") from None
    mistake_of = mistake if flag.kind is Kind.URLS else _MISTAKE_OF.get(flag.name)
    parts = (found,) if isinstance(found, str) else found
    if flag.kind is not Kind.URLS:  # of URLs there may be none
        parts = parts or ("",)
    if mistake_of and (wrong := next(filter(None, map(mistake_of, parts)), "")):
        raise error(f"{what}: {wrong}")
    return found


def _variables(table: Mapping[str, Flag], environ: Mapping[str, str]) -> list[str]:
    """Variables that would be settings without a configuration file."""
    names = {prefix + flag.env_name for flag in table.values() for prefix in ("MUSTER_", "ETCD_")}
    unread = ("CONFIG_FILE", "HELP", "VERSION")
    return [v for v in sorted(environ) if v in names and environ[v] and v.partition("_")[2] not in unread]


def _from_environ(result: Values, table: Mapping[str, Flag], environ: Mapping[str, str]) -> None:
    known = {f.env_name: f for f in table.values() if f.name not in ("help", "version")}
    for prefix in ("MUSTER_", "ETCD_"):
        for variable in sorted(environ):
            if not variable.startswith(prefix) or not environ[variable]:
                continue  # an empty variable counts as unset
            flag = known.get(variable[len(prefix) :])
            if flag is None:
                if variable not in ("ETCD_VERSION", *_OWN_VARIABLES):
                    # etcd logs its value, too, which may be a password of an image's own script
                    result.warnings.append(f"unrecognized environment variable {variable}")
            elif not result.is_set(flag.name):  # the command line wins, then MUSTER_*
                _set(result, flag, environ[variable], "environment", ConfigError, variable)
                result.variables[flag.name] = variable
            elif not (_means(flag, environ[variable], result[flag.name])
                      or _is_packaged(result, variable, environ[variable])):
                winner = result.variables.get(flag.name, f"--{flag.name}")
                result.warnings.append(f"{variable} is ignored: {winner} wins")


def _means(flag: Flag, text: str, value: Any) -> bool:
    try:
        return bool(convert(flag, text) == value)
    except ValueError:
        return False


def _is_packaged(result: Values, variable: str, text: str) -> bool:
    """Whether a user has named a data directory instead of the image's or the unit's, as is expected."""
    return (variable, text) == ("ETCD_DATA_DIR", PACKAGED_DATA_DIR) and result.is_set("data-dir")


def _from_file(table: Mapping[str, Flag], path: str) -> Values:
    try:
        with open(path, encoding="utf-8") as f:
            documents = yaml.load_all(f, _Loader)
            document = next(documents, None)
            more = _is_more(documents)
    except OSError as e:
        raise ConfigError(f"cannot read --config-file {path}: {e.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError(f"cannot parse --config-file {path}: {' '.join(str(e).split())}") from None
    except (LookupError, AttributeError, TypeError, ArithmeticError):  # of a tag on another thing: !!bool x
        raise ConfigError(f"cannot parse --config-file {path}: a value is not of its tag") from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"cannot parse --config-file {path}: not a map of keys")
    result = Values({f.name: _default(f) for f in table.values()})
    known = {flag.yaml_path for flag in table.values() if flag.yaml_path}
    document = _in_small_letters(document, known)
    for flag in table.values():
        node = _node(document, flag.yaml_path, path)
        if node is None:
            continue
        if "\0" in (text := _file_text(flag, node, path)):  # neither flags nor variables can have one
            raise ConfigError(f"key {flag.name} in {path}: a NUL is not possible here")
        _set(
            result, flag, text, "file", ConfigError,
            f"key {flag.yaml} in {path}" if flag.yaml else f"key {flag.name} in {path}",
        )
    result.sources["config-file"] = "flag"
    result.values["config-file"] = path
    if more:
        result.warnings.append(f"only the first document of {path} counts")
    # etcd ignores unknown keys silently; a setting without effect gets a warning
    result.warnings += [
        f"unrecognized key {'.'.join(key)} in {path}" for key in _unknown_keys(document, known)
    ]
    return result


def _is_more(documents: Iterator[Any]) -> bool:
    """Whether anything stands in one of these documents, be it none of YAML: etcd does not read them."""
    try:
        return any(documents)
    except Exception:
        return True


def _in_small_letters(
    document: dict[Any, Any], known: set[tuple[str, ...]], above: tuple[str, ...] = ()
) -> dict[Any, Any]:
    """The same with its known keys as flags have them: etcd takes capitals for small letters."""
    found: dict[Any, Any] = {}
    for step, node in document.items():
        key = (*above, str(step).lower())
        section = any(path[: len(key)] == key for path in known)
        if section and key not in known and isinstance(node, dict):
            node = _in_small_letters(node, known, key)
        found[key[-1] if section else step] = node
    return found


def _node(document: dict[Any, Any], key: tuple[str, ...], path: str) -> Any:
    """What stands at a key of a file, None for nothing. ConfigError."""
    node: Any = document if key else None
    for depth, step in enumerate(key):
        if node is None:
            break
        if not isinstance(node, dict):
            raise ConfigError(f"key {'/'.join(key[:depth])} in {path}: not a map of keys")
        node = node.get(step)
    return node


def _unknown_keys(
    document: dict[Any, Any], known: set[tuple[str, ...]], above: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for step, node in document.items():
        key = (*above, str(step))
        if key in known:
            continue
        if isinstance(node, dict | None) and any(path[: len(key)] == key for path in known):
            found += _unknown_keys(node or {}, known, key)
        else:
            found.append(key)
    return found


def _file_text(flag: Flag, node: Any, path: str) -> str:
    """A file's value as on the command line."""
    if isinstance(node, list):
        if flag.kind is not Kind.LIST:
            raise ConfigError(f"key {flag.name} in {path}: a list is not possible here")
        return ",".join(str(part) for part in node if part is not None)
    if isinstance(node, dict):
        if flag.name != "feature-gates":
            raise ConfigError(f"key {flag.name} in {path}: a map is not possible here")
        return ",".join(f"{k}={_truth(str(v))}" for k, v in node.items())
    text = str(node)
    if flag.kind is Kind.BOOL:
        return _truth(text)
    if flag.kind in NUMBERS:
        return _numeral(text)
    if flag.kind is Kind.DURATION and not isinstance(node, _Quoted):
        with suppress(ValueError):
            return f"{number(_numeral(text), Kind.INT)}ns"  # etcd's file format: bare numbers are nanoseconds
    return text


def _truth(text: str) -> str:
    """A boolean in Go's words, of YAML 1.1's."""
    word = text.lower()
    return "true" if word in ("y", "yes", "on") else "false" if word in ("n", "no", "off") else text


def _numeral(text: str) -> str:
    """A number as Go reads it. Charts write integers with an exponent: 8.589934592e+09. A file's may have any
    underscores behind its first character."""
    if text[:1] in {*"+-0123456789"}:
        text = text.removeprefix("+").replace("_", "")
    with suppress(ValueError):  # float reads no other base: the e of 0xe is a digit
        if ("." in text or "e" in text.lower()) and (value := float(text)).is_integer():
            return str(int(value))
    return text


def _resolve_aliases(result: Values, table: Mapping[str, Flag]) -> None:
    """Move values of deprecated names to the new ones, with a warning each."""
    gates = []
    named = (part.partition("=") for part in result.values.get("feature-gates", "").split(","))
    given = {name.strip(): text.strip() for name, _, text in named}
    for flag in table.values():
        if not result.is_set(flag.name):
            continue
        if flag.support is Support.IGNORED:
            result.warnings.append(f'deprecated command line flag "{flag.name}" ignored')
        if flag.support is not Support.ALIAS:
            continue
        target, _, gate = flag.alias.partition(":")
        new_name = f"--{target}={gate}=true" if gate else f"--{target}"
        result.warnings.append(f"--{flag.name} is deprecated, use {new_name}")
        if gate:
            value = str(result[flag.name]).lower()
            if gate in given:
                here = f"--feature-gates={gate}={given[gate]}"
                raise ConfigError(
                    f"cannot specify both flags: --{flag.name}={value} and {here} at the same time, please "
                    f"just use {here}")
            gates.append(f"{gate}={value}")
        elif result.is_set(target):
            raise ConfigError(f"cannot set both --{flag.name} and --{target}: use only --{target}")
        else:
            result.values[target] = result[flag.name]
            result.sources[target] = result.sources[flag.name]
    if gates:
        beside = [result.values["feature-gates"]] if result.values["feature-gates"] else []
        result.values["feature-gates"] = ",".join(beside + gates)
        result.sources["feature-gates"] = "flag"
