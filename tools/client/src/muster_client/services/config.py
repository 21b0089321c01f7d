"""Configuration under a prefix, followed into a dataclass or a model of pydantic."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import json
import logging
import types
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from muster_client import ranges
from muster_client.errors import MusterError
from muster_client.mirror import Mirror
from muster_client.ranges import Text
from muster_client.wire import engine

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
Model = TypeVar("Model")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class _Both(dict[str, Any]):
    """Keys below a key that has a value, too: an error only for a field."""


class Config(Generic[Model]):
    """Keys under a prefix as a model; in ``async with`` it follows them.

    ``prefix/pool/size`` is field ``size`` of field ``pool``. Values are text; numbers, booleans and enums are
    read from it, lists and dicts from JSON. Keys that are no field are left out. A field without a key has
    its default.

    The first state must be valid: ValueError. A later one that is not leaves :attr:`value` as it was, and is
    told by :attr:`error`, the log and ``on_error``.
    """

    def __init__(
        self, client: Client, prefix: Text, model: type[Model],
        on_error: Callable[[Exception], None] | None,
    ) -> None:
        self._prefix = ranges.data(prefix).rstrip(b"/") + b"/"
        self._mirror = Mirror(client, ranges.prefix(self._prefix), None)
        self._model, self._on_error = model, on_error
        self._value: Model | None = None
        self.error: Exception | None = None
        self.revision = 0
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    @property
    def value(self) -> Model:
        """The last valid state, as of ``revision``. MusterError: the keys cannot be followed any
        more."""
        if self._value is None or self._task is None or self._task.cancelled():
            raise MusterError("the configuration is used in `async with`")
        self._mirror._check_process()
        if self._task.done():
            self._task.result()
        return self._value

    async def changes(self) -> AsyncIterator[Model]:
        """The state, and each later one; those that follow each other too fast are left out."""
        last = self.value
        yield last
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self.value is not last)
            yield (last := self.value)

    async def __aenter__(self) -> Self:
        await self._mirror.__aenter__()
        self._changed = asyncio.Condition()  # as in the mirror
        try:
            self.revision = self._mirror.revision
            self._value, self.error = self._built(), None
        except BaseException:
            await self._mirror.__aexit__(None, None, None)
            raise
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await engine.stop(self._task)
        await self._mirror.__aexit__(kind, error, trace)

    async def _follow(self) -> None:
        try:
            while True:
                await self._mirror.wait_for(self.revision + 1)
                self.revision = self._mirror.revision
                self._step()
                async with self._changed:
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()

    def _step(self) -> None:
        """Take the new state, if it is valid and another one."""
        try:
            value = self._built()
        except Exception as error:  # the model's own checks may raise any
            self.error = error
            log.warning("configuration %r: not valid, the last valid one stays: %s", self._prefix, error)
            if self._on_error is not None:
                self._on_error(error)
            return
        self.error = None
        if value != self._value:
            self._value = value

    def _built(self) -> Model:
        tree: dict[str, Any] = {}
        for key, kv in sorted(self._mirror.copy().items()):
            *path, name = key[len(self._prefix):].decode(errors="replace").split("/")
            place = tree
            for part in path:
                if not isinstance(place.setdefault(part, {}), dict):
                    place[part] = _Both()
                place = place[part]
            place[name] = kv.value.decode(errors="replace")
        return built(self._model, tree)


def built(model: type[Model], tree: Mapping[str, Any]) -> Model:
    """A dataclass, or a model of pydantic, of texts by name. ValueError; TypeError for another class."""
    if dataclasses.is_dataclass(model):
        return typing.cast(Model, _dataclass(model, tree, ""))
    validate = getattr(model, "model_validate", None)
    if validate is None:
        raise TypeError(f"{model!r} is no dataclass and no model of pydantic")
    return typing.cast(Model, validate(_for_pydantic(model, tree)))


def _dataclass(model: type, tree: Mapping[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(model)
    given = {}
    for one in dataclasses.fields(model):
        if one.name in tree and one.init:
            given[one.name] = _value(hints[one.name], tree[one.name], f"{path}{one.name}")
        elif one.init and dataclasses.is_dataclass(hints[one.name]) and _required(one):
            given[one.name] = _dataclass(typing.cast(type, hints[one.name]), {}, f"{path}{one.name}/")
        elif one.init and _required(one):
            raise ValueError(f"{path}{one.name}: there is no such key, and no default")
    return model(**given)


def _required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _value(hint: Any, text: Any, path: str) -> Any:
    """A value of a type. ValueError."""
    if isinstance(text, _Both):
        raise ValueError(f"{path}: it has a value, and keys below it, too")
    while (meant := getattr(hint, "__supertype__", None) or getattr(hint, "__value__", None)) is not None:
        hint = meant  # of a NewType, or of a `type` statement
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if text == "" and kinds != [str] and type(None) in typing.get_args(hint):
            return None
        for kind in kinds[:-1]:
            with contextlib.suppress(ValueError):
                return _value(kind, text, path)
        return _value(kinds[-1], text, path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(text, Mapping):
            raise ValueError(f"{path}: it has keys below it, and no value")
        return _dataclass(typing.cast(type, hint), text, f"{path}/")
    if origin is dict and isinstance(text, Mapping):
        kind = typing.get_args(hint)[1]
        return {name: _value(kind, one, f"{path}/{name}") for name, one in text.items()}
    if isinstance(text, Mapping):
        raise ValueError(f"{path}: it has a value, and no keys below it")
    try:
        return _parsed(origin or hint, hint, text)
    except Exception as error:  # a type's own: Decimal has one that is no ValueError
        raise ValueError(f"{path}: {text!r} is no {getattr(hint, '__name__', hint)}: {error}") from None


def _parsed(kind: Any, hint: Any, text: str) -> Any:
    if kind is str or kind is typing.Any:
        return text
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("it is true or false")
        return text.lower() in _TRUE
    if kind is bytes:
        return text.encode()
    if kind in (list, tuple, set, frozenset, dict):
        told = json.loads(text)
        if not isinstance(told, dict if kind is dict else list):
            raise ValueError("it is JSON of another kind")
        return kind(told)
    if kind is typing.Literal:
        for choice in typing.get_args(hint):
            if str(choice) == text:
                return choice
        raise ValueError(f"it is one of {typing.get_args(hint)}")
    if isinstance(hint, enum.EnumMeta):  # its values may be numbers
        text = {str(one.value): one.value for one in kind}.get(text, text)
    return kind(text)


_OPEN: Any = object()  # of a union of several models, say


def _for_pydantic(kind: Any, tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Lists and dicts from JSON; pydantic reads the rest from text. ``kind``: of what holds them; None: it is
    no field. ValueError."""
    found: dict[str, Any] = {}
    for name, one in tree.items():
        inner = _inner(kind, name)
        if inner is not None and inner is not _OPEN and isinstance(one, _Both):
            raise ValueError(f"{path}{name}: it has a value, and keys below it, too")
        if isinstance(one, Mapping):
            found[name] = _for_pydantic(inner, one, f"{path}{name}/")
            continue
        found[name] = one
        if inner is not str and one[:1] in ("[", "{"):
            with contextlib.suppress(ValueError):  # pydantic says what is wrong with it
                found[name] = json.loads(one)
    return found


def _inner(kind: Any, name: str) -> Any:
    """The type of what has this name in a value of a type; None: it is no field; _OPEN: it may be one."""
    if kind is None or kind is _OPEN:
        return kind
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = [one for one in typing.get_args(kind) if one is not type(None)]
        return _inner(kinds[0], name) if len(kinds) == 1 else _OPEN
    fields = getattr(kind, "model_fields", None)
    if fields is None:
        if typing.get_origin(kind) is dict:
            return typing.get_args(kind)[1]
        return Any if kind in (Any, dict) else _OPEN
    if getattr(kind, "__pydantic_root_model__", False):
        return _inner(fields["root"].annotation, name)
    config = kind.model_config
    for own, field in fields.items():
        found = _names(own, field.validation_alias, config)
        if name in found:
            return field.annotation if found[name] else Any
    return Any if config.get("extra") == "allow" else None


def _names(own: str, alias: Any, config: Mapping[str, Any]) -> dict[str, bool]:
    """What a field of pydantic is read from, and whether all of it is the field (no longer AliasPath)."""
    choices = [] if alias is None else getattr(alias, "choices", [alias])
    found = {
        one if isinstance(one, str) else one.path[0]: isinstance(one, str) or len(one.path) == 1
        for one in choices}
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return {**found, own: True} if by_name or not found else found
