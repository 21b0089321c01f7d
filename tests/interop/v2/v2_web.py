"""What the web interfaces ask for: etcd-browser by its own server, which passes requests on in pieces of
unknown length, and etcdkeeper on either version."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator

from tests.interop.v2.v2_hosts import FORM, LIMIT_S, Answer, Server

ALLOWED = "http://ui.example:8000"  # an origin that --cors names
_JSON = "application/json"
_CORS = ("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers")

BROWSER: list[tuple[str, str]] = [
    ("PUT", "/v2/keys/t/dir?dir=true"),
    ("GET", "/v2/keys/t/dir"),
    ("PUT", "/v2/keys/t/dir/n?value=a+b%20%C3%A9"),
    ("PUT", "/v2/keys/t/dir/n?value=edited"),
    ("PUT", "/v2/keys/t/dir/empty?value="),
    ("GET", "/v2/keys/t/dir/n"),
    ("PUT", "/v2/keys/t/dir/copy?value=edited"),
    ("PUT", "/v2/keys/t/dir/below?dir=true"),
    ("PUT", "/v2/keys/t/dir/below/n?value=deep"),
    ("GET", "/v2/keys/t/dir?sorted=true"),
    ("PUT", "/v2/keys/t/twin/below/n?value=deep"),
    ("DELETE", "/v2/keys/t/dir/n"),
    ("GET", "/v2/keys/t/dir/n"),
    ("PUT", "/v2/keys/t/dir?dir=true"),
    ("DELETE", "/v2/keys/t/dir?dir=true"),
    ("DELETE", "/v2/keys/t/dir?dir=true&recursive=true"),
    ("GET", "/v2/keys/t/dir"),
    ("GET", "/v2/stats/leader"),
    ("GET", "/v2/stats/nothing"),
]

_READ = "quorum=false&recursive=true&sorted=true"
KEEPER: list[tuple[str, str, str | None, str | None]] = [  # with the body and its kind
    ("GET", "/v2/members", None, None),
    ("GET", "/v2/members/leader", None, None),
    ("PUT", "/v2/keys/t/app?dir=true&prevExist=false", "value=", FORM),
    ("PUT", "/v2/keys/t/app/a", "value=1", FORM),
    ("PUT", "/v2/keys/t/app/b", "ttl=600&value=2", FORM),
    ("GET", f"/v2/keys/t/app?{_READ}", None, None),
    ("GET", f"/v2/keys/t/app/a?{_READ}", None, None),
    ("GET", f"/v2/keys/t/none?{_READ}", None, None),
    ("PUT", "/v2/keys/t/app/a", "value=", FORM),
    ("DELETE", "/v2/keys/t/app/a", None, None),
    ("DELETE", "/v2/keys/t/app?dir=true&recursive=true", None, None),
]

# by etcdkeeper's client of version 3, here through the JSON gateway: what a view of a key takes
KEEPER_3: list[tuple[str, dict[str, object]]] = [
    ("kv/put", {"key": "d2ViL2E=", "value": "MQ=="}),
    ("kv/range", {"key": "d2ViLw==", "range_end": "d2ViMA==", "keys_only": True, "sort_target": "KEY",
                  "sort_order": "ASCEND"}),
    ("kv/range", {"key": "d2ViL2E="}),
    ("lease/timetolive", {"ID": "0"}),
    ("kv/deleterange", {"key": "d2ViLw==", "range_end": "d2ViMA=="}),
    ("maintenance/status", {}),
    ("cluster/member/list", {}),
    ("auth/user/list", {}),
]  # fmt: skip


def pieces(server: Server, method: str, path: str) -> Answer:
    """As etcd-browser's server passes a request on: the browser's fields, a body without a length."""
    headers = {
        "Host": "10.0.0.1:8000",
        "Accept": "application/json, text/plain, */*",
        "Content-Type": "application/json;charset=utf-8",
        "Origin": ALLOWED,
        "Referer": f"{ALLOWED}/",
        "Connection": "close",
    }
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=LIMIT_S)) as connection:
        body: Iterator[bytes] | None = iter(()) if method in ("PUT", "DELETE") else None
        more = {"Transfer-Encoding": "chunked"} if body is not None else {}
        connection.request(method, path, body, headers | more, encode_chunked=body is not None)
        return _answer(connection)


def cors(server: Server, method: str, path: str, origin: str) -> dict[str, str]:
    """What a browser is told of who may ask."""
    with contextlib.closing(http.client.HTTPConnection(server.address, timeout=LIMIT_S)) as connection:
        connection.request(method, path, None, {"Origin": origin} if origin else {})
        answer = _answer(connection)
        return {name: answer.headers[name] for name in _CORS if name in answer.headers} | {
            "status": str(answer.status)
        }


def keeper_3(server: Server, path: str, body: dict[str, object]) -> object:
    """What is alike in the answers of two servers: all but IDs, addresses, sizes and revisions."""
    answer = server.ask("POST", f"/v3/{path}", json.dumps(body), _JSON)
    return answer.status, _shape(json.loads(answer.body))


_OWN = frozenset((
    "header", "ID", "create_revision", "mod_revision", "dbSize", "dbSizeInUse", "dbSizeQuota", "leader",
    "raftIndex", "raftTerm", "raftAppliedIndex", "clientURLs", "peerURLs", "version", "name",
    "downgradeInfo",  # etcd 3.6 says it, and 3.5 does not
))  # fmt: skip


def _shape(found: object) -> object:
    if isinstance(found, dict):
        return {key: _shape(value) for key, value in found.items() if key not in _OWN}
    return [_shape(one) for one in found] if isinstance(found, list) else found


def _answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, found, answer.read().decode("utf-8", "surrogateescape"))
