"""What a request for ``/v2/keys`` asks for: the checks of etcd's ``parseKeyRequest``, in its order."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.features.v2.refusals import Code, V2Error
from cluster.gotext import clean_path
from proxy.v2.form import BadForm, form_of

PREFIX = "/v2/keys"

_BOOLS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_DIGITS = re.compile(r"[0-9]+")
_SECOND_NS = 1_000_000_000
_HALF, _WHOLE = 1 << 63, 1 << 64


@dataclass(slots=True)
class KeyRequest:
    """One request. Its path is clean and begins with "/"."""

    method: str
    path: str
    value: str
    directory: bool
    prev_value: str
    prev_index: int
    prev_exist: bool | None
    refresh: bool | None
    expiration_ns: int  # since 1970; 0: none. Go's arithmetic: what does not fit 64 bits wraps
    wait: bool
    since: int
    recursive: bool
    sort: bool
    quorum: bool
    stream: bool
    no_value: bool  # the answer is to name the action only
    written: bool = False  # the request's body is the write that goes on, and the values here are dropped


def parse_key_request(method: str, path: str, query: str, body: bytes, content_type: str,
                      now_ns: int) -> KeyRequest:
    """``path`` is decoded, with ``/v2/keys``; ``query`` as it came. V2Error for what etcd refuses."""
    try:
        form = form_of(method, query, body, content_type)
    except BadForm as error:
        cause = str(error.args[0]).encode("utf-8", "surrogateescape")
        raise V2Error(Code.INVALID_FORM, cause) from None
    if not path.startswith(PREFIX):
        raise V2Error(Code.INVALID_FORM, "incorrect key prefix")
    prev_index = _number(form, "prevIndex")
    since = _number(form, "waitIndex")
    recursive = _flag(form, "recursive")
    sort = _flag(form, "sorted")
    wait = _flag(form, "wait")
    directory = _flag(form, "dir")
    quorum = _flag(form, "quorum")
    stream = _flag(form, "stream")
    if wait and method != "GET":
        raise V2Error(Code.INVALID_FIELD, '"wait" can only be used with GET requests')
    prev_value = form.get("prevValue")
    if prev_value == "":
        raise V2Error(Code.PREV_VALUE_REQUIRED, '"prevValue" cannot be empty')
    no_value = _flag(form, "noValueOnSuccess")
    ttl: int | None = None
    if form.get("ttl"):
        ttl = _unsigned(form["ttl"])
        if ttl is None:
            raise V2Error(Code.TTL_NAN, 'invalid value for "ttl"')
    value = form.get("value", "")
    prev_exist = _maybe(form, "prevExist", "prevExist")
    refresh = _maybe(form, "refresh", "refresh")
    if refresh:
        if value:
            raise V2Error(Code.REFRESH_VALUE, "A value was provided on a refresh")
        if ttl is None:
            raise V2Error(Code.REFRESH_TTL_REQUIRED, "No TTL value set")
    return KeyRequest(
        method=method, path=clean_path(path[len(PREFIX) :]), value=value, directory=directory,
        prev_value=prev_value or "", prev_index=prev_index, prev_exist=prev_exist, refresh=refresh,
        expiration_ns=0 if ttl is None else _signed(now_ns + _signed(ttl * _SECOND_NS)),
        wait=wait and not quorum,  # such a request reads, at every etcd
        since=since, recursive=recursive, sort=sort, quorum=quorum, stream=stream, no_value=no_value)


def _number(form: dict[str, str], name: str) -> int:
    if name not in form:
        return 0
    found = _unsigned(form[name])
    if found is None:
        raise V2Error(Code.INDEX_NAN, f'invalid value for "{name}"')
    return found


def _unsigned(text: str) -> int | None:
    if (len(text) > 20 and len(text.lstrip("0")) > 20) or _DIGITS.fullmatch(text) is None:
        return None
    found = int(text.lstrip("0") or "0")
    return found if found < _WHOLE else None


def _flag(form: dict[str, str], name: str) -> bool:
    return bool(_maybe(form, name, f'"{name}"'))


def _maybe(form: dict[str, str], name: str, shown: str) -> bool | None:
    """An optional flag; etcd quotes only some names."""
    if name not in form:
        return None
    found = _BOOLS.get(form[name])
    if found is None:
        raise V2Error(Code.INVALID_FIELD, f"invalid value for {shown}")
    return found


def _signed(number: int) -> int:
    return (number + _HALF) % _WHOLE - _HALF
