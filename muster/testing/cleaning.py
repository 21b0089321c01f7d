"""Emptying a store between tests, over the JSON gateway, so that no client library is needed."""

from __future__ import annotations

import http.client
import json
from typing import Any

_LIMIT_S = 10.0
_ALL = {"key": "AA==", "range_end": "AA=="}  # one zero byte for both: every key


class NotClean(Exception):
    """Something is left that cannot be undone."""


def clean(port: int) -> None:
    """Remove all that tests make. NotClean."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=_LIMIT_S)
    try:
        _clean(link)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise NotClean(repr(e)) from None
    finally:
        link.close()


def _clean(link: http.client.HTTPConnection) -> None:
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
    status, body = _call(link, "GET", "/v2/keys/")
    for node in json.loads(body)["node"].get("nodes", []) if status == 200 else []:
        _call(link, "DELETE", f"/v2/keys{node['key']}?recursive=true")


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
