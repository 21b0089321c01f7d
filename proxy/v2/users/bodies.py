"""The bodies of ``/v2/auth``, as Go's ``encoding/json`` reads them into etcd's structs: field by field, so
that an object or a list which comes twice is read into the same one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from cluster.features.v2.user_changes import RoleWish
from cluster.features.v2.users import Names, Permissions
from proxy.gateway.go_json import Fields, first, is_text, whole_text

_Arrays = defaultdict[str, list[str]]  # by a list's name: all that Go holds for it, also behind its end


class BadBody(ValueError):
    ...


def user_of(body: bytes) -> tuple[str, str, Names, Names, Names]:
    user = password = ""
    lists: dict[str, Names] = {"roles": None, "grant": None, "revoke": None}
    arrays: _Arrays = defaultdict(list)
    for name, value in _first(body):
        if name == "user":
            user = _text(value, user)
        elif name == "password":
            password = _text(value, password)
        elif name in lists:
            lists[name] = _list(value, arrays[name])
    return user, password, lists["roles"], lists["grant"], lists["revoke"]


def role_of(body: bytes) -> tuple[str, RoleWish]:
    role, permissions = "", Permissions()
    pointers: dict[str, Permissions | None] = {"grant": None, "revoke": None}
    arrays: defaultdict[str, _Arrays] = defaultdict(lambda: defaultdict(list))
    for name, value in _first(body):
        if name == "role":
            role = _text(value, role)
        elif name == "permissions":
            permissions = _permissions(value, permissions, arrays[name])
        elif name in pointers:
            held = pointers[name] or Permissions()
            pointers[name] = None if value is None else _permissions(value, held, arrays[name])
            if value is None:
                arrays.pop(name, None)
    return role, RoleWish(permissions, pointers["grant"], pointers["revoke"])


def _first(body: bytes) -> Fields:
    try:
        found = first(body)
    except (ValueError, EOFError):
        raise BadBody from None
    return _fields(found)


def _fields(found: Any) -> Fields:
    """None leaves a struct as it is."""
    if found is None:
        return Fields()
    if not isinstance(found, Fields):
        raise BadBody
    return found


def _permissions(found: Any, held: Permissions, arrays: _Arrays) -> Permissions:
    for name, kv in _fields(found):
        if name != "kv":
            continue
        for kind, names in _fields(kv):
            if kind in ("read", "write"):
                held = replace(held, **{kind: _list(names, arrays[kind])})
    return held


def _list(found: Any, held: list[str]) -> Names:
    """A list. null in it leaves what its array held at that place."""
    if found is not None and (isinstance(found, Fields) or not isinstance(found, list)):
        raise BadBody
    if not found:
        held.clear()
        return None if found is None else ()
    for at, each in enumerate(found):
        held[at : at + 1] = [_text(each, held[at] if at < len(held) else "")]
    return tuple(held[: len(found)])


def _text(found: Any, held: str = "") -> str:
    """A string; None leaves the one before. Half a character of UTF-16 is replaced, as in Go."""
    if found is None:
        return held
    if not is_text(found):
        raise BadBody
    return whole_text(found)
