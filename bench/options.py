"""Commands of typer whose options stand in a table, or are the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

#: By name: the type with its ``typer.Option``, and the default (``...``: none).
Options = Mapping[str, tuple[Any, Any]]
T = TypeVar("T")


def taking(options: Options, run: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """``run`` as a function with the signature that typer reads the options from."""
    def invoke(**given: Any) -> None:
        run(given)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint,
                                    default=inspect.Parameter.empty if default is ... else default)
                  for name, (hint, default) in options.items()]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {name: hint for name, (hint, _) in options.items()}
    invoke.__name__, invoke.__doc__ = run.__name__, run.__doc__
    return invoke


def taking_fields(kind: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Make a command of a function that takes one dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    options = {f.name: (hints[f.name], ... if f.default is MISSING else f.default)
               for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass

    def make(run: Callable[[T], None]) -> Callable[..., None]:
        made = taking(options, lambda given: run(kind(**given)))
        made.__name__, made.__doc__ = run.__name__, run.__doc__
        return made

    return make
