"""Emptying a store between tests, over the JSON gateway, so that no client library is needed."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

_LIMIT_S = 10.0
_MARK = "/v2/keys/muster-testing"
_ALL = {"key": "AA==", "range_end": "AA=="}  # one zero byte for both: every key


class NotClean(Exception):
    """Something is left that cannot be undone."""


def index_of(port: int) -> int:
    """Version 2's index: of its last write. 0: it is not served. NotClean."""
    return _linked(port, _index)


def clean(port: int, since: int) -> int:
    """Remove all that tests make. ``since``: version 2's index when the store was empty; its index now.
    NotClean."""
    return _linked(port, lambda link: _clean(link, since))


def _linked(port: int, step: Callable[[http.client.HTTPConnection], int]) -> int:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    try:
        return step(link)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise NotClean(repr(e)) from None
    finally:
        link.close()


def _clean(link: http.client.HTTPConnection, since: int) -> int:
    if len(_post(link, "cluster/member/list")["members"]) != 1:
        raise NotClean("members were added")
    for lease in _post(link, "lease/leases").get("leases", []):
        _post(link, "lease/revoke", {"ID": lease["ID"]}, gone_is_fine=True)
    for alarm in _post(link, "maintenance/alarm", {"action": "GET"}).get("alarms", []):
        _post(link, "maintenance/alarm", {**alarm, "action": "DEACTIVATE"})
    _post(link, "kv/deleterange", _ALL)
    for user in _post(link, "auth/user/list").get("users", []):
        _post(link, "auth/user/delete", {"name": user})
    for role in _post(link, "auth/role/list").get("roles", []):
        _post(link, "auth/role/delete", {"role": role})
    if _index(link) == since:
        return since
    _look_for_hidden(link, since)
    status, body = _call(link, "GET", "/v2/keys/")
    for node in json.loads(body)["node"].get("nodes", []) if status == 200 else []:
        _call(link, "DELETE", f"/v2/keys{urllib.parse.quote(node['key'])}?recursive=true")
    return _index(link)


def _index(link: http.client.HTTPConnection) -> int:
    link.request("GET", "/v2/keys/")
    answer = link.getresponse()
    answer.read()
    return int(answer.headers.get("X-Etcd-Index", 0))


def _look_for_hidden(link: http.client.HTTPConnection, since: int) -> None:
    """NotClean where version 2 was written out of sight: no list has keys like ``/_a``, and changes of users
    count as writes. Each write has an index, and a watch of everything tells those that can be seen."""
    status, body = _call(link, "PUT", _MARK)  # the last one, so that no watch waits
    last = json.loads(body)["node"]["modifiedIndex"] if status in (200, 201) else 0
    seen = since
    while status in (200, 201) and seen < last:
        status, body = _call(link, "GET", f"/v2/keys/?recursive=true&wait=true&waitIndex={seen + 1}")
        if status != 200 or json.loads(body)["node"]["modifiedIndex"] != seen + 1:
            break
        seen += 1
    if not last or seen < last:
        raise NotClean("version 2 has users, hidden keys, or more changes than it tells of")


def _post(
    link: http.client.HTTPConnection, path: str, body: object = None, *, gone_is_fine: bool = False
) -> dict[str, Any]:
    status, answer = _call(link, "POST", f"/v3/{path}", json.dumps(body or {}))
    if status != 200 and not (gone_is_fine and status == 404):
        raise NotClean(f"{path}: {answer.decode(errors='replace').strip()}")
    found = json.loads(answer)
    assert isinstance(found, dict)
    return found


def _call(link: http.client.HTTPConnection, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    link.request(method, path, body or None)
    answer = link.getresponse()
    return answer.status, answer.read()
