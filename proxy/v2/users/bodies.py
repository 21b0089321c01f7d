"""The bodies of ``/v2/auth``, as Go's ``encoding/json`` reads them into etcd's structs."""

from __future__ import annotations

from typing import Any

from cluster.features.v2.user_changes import RoleWish
from cluster.features.v2.users import Names, Permissions
from proxy.gateway.go_json import first, is_text, whole_text


class BadBody(ValueError):
    ...


def user_of(body: bytes) -> tuple[str, str, Names, Names, Names]:
    found = _first(body)
    roles, grant, revoke = (_list(found.get(name)) for name in ("roles", "grant", "revoke"))
    return _text(found.get("user")), _text(found.get("password")), roles, grant, revoke


def role_of(body: bytes) -> tuple[str, RoleWish]:
    found = _first(body)
    permissions, grant, revoke = (_permissions(found.get(n)) for n in ("permissions", "grant", "revoke"))
    return _text(found.get("role")), RoleWish(permissions or Permissions(), grant, revoke)


def _first(body: bytes) -> dict[str, Any]:
    try:
        found = first(body)
    except (ValueError, EOFError):
        raise BadBody from None
    return _struct(found)


def _struct(found: Any) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadBody
    return found


def _permissions(found: Any) -> Permissions | None:
    if found is None:
        return None
    kv = _struct(_struct(found).get("kv"))
    return Permissions(_list(kv.get("read")), _list(kv.get("write")))


def _list(found: Any) -> Names:
    if found is None:
        return None
    if not isinstance(found, list):
        raise BadBody
    return tuple(_text(each) for each in found)


def _text(found: Any) -> str:
    """A string; half a character of UTF-16 is replaced, as in Go."""
    if found is None:
        return ""
    if not is_text(found):
        raise BadBody
    return whole_text(found)
