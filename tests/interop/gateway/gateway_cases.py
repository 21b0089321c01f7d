"""Requests to the JSON gateway that muster and etcd 3.5 must answer alike, in scenarios that share a key
space.

Keys and values are written in base64: ``Zm9v`` is foo, ``YmFy`` bar.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True)
class Ask:
    """One request. ``lines``: it is a stream that does not end, of which so many lines are read."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    lines: int = 0


def b64(text: str) -> str:
    """A key or a value."""
    return base64.b64encode(text.encode()).decode()


def ask(path: str, body: Any = b"", method: str = "POST", lines: int = 0, **headers: str) -> Ask:
    """A request; a body that is no text is encoded. ``a_b`` is the header field a-b."""
    raw = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    return Ask(path, raw, method, {name.replace("_", "-"): value for name, value in headers.items()}, lines)


def each(path: str, *bodies: Any) -> list[Ask]:
    """One request per body."""
    return [ask(path, body) for body in bodies]


KEY, OTHER = b64("foo"), b64("fop")
PUT, RANGE, DELETE, TXN = "/v3/kv/put", "/v3/kv/range", "/v3/kv/deleterange", "/v3/kv/txn"
WATCH, KEEPALIVE = "/v3/watch", "/v3/lease/keepalive"
PUT_FOO = {"request_put": {"key": KEY, "value": b64("x")}}
GET_FOO = {"request_range": {"key": KEY}}
IF_FOO = {"target": "VERSION", "key": KEY, "result": "GREATER", "version": 0}

SCENARIOS: dict[str, list[Ask]] = {
    "puts": [
        *each(
            PUT,
            {"key": KEY, "value": "YmFy"},
            {"key": KEY, "value": "YmF6", "prev_kv": True},
            {"key": KEY},
            {"key": KEY, "value": "YQ==", "prevKv": True},
            {"key": b64("n/1"), "value": ""},
            {"key": ""},
            {},
            {"key": KEY, "ignore_value": True, "value": "YQ=="},
            {"key": b64("nope"), "ignore_value": True},
            {"key": KEY, "ignore_lease": True, "lease": 5},
            {"key": KEY, "lease": "123456"},
            {"key": KEY, "lease": 9},
            {"key": KEY, "value": None},
            {"key": None},
            {"key": KEY, "unknown": [1, {"a": None}]},
            {"key": KEY, "prev_kv": None},
            {"key": "a2V5/w=="},
            {"key": "a2V5_w=="},
            {"key": [102, 111]},
            {"key": [300]},
            {"key": ["a"]},
        ),
    ],
    "ranges": [
        *[ask(PUT, {"key": b64(f"r/{i}"), "value": b64(f"v<&>{i}")}) for i in range(4)],
        *each(
            RANGE,
            {"key": KEY},
            {"key": b64("r/"), "range_end": b64("r0")},
            {"key": b64("r/"), "rangeEnd": b64("r0"), "limit": 2},
            {"key": b64("r/"), "range_end": b64("r0"), "limit": "2", "keys_only": True},
            {"key": b64("r/"), "range_end": b64("r0"), "count_only": True},
            {"key": b64("none")},
            {"key": ""},
            {},
            {"key": b64("r/"), "range_end": b64("r0"), "sort_order": "DESCEND"},
            {"key": b64("r/"), "range_end": b64("r0"), "sort_order": 2, "sort_target": "MOD"},
            {"key": b64("r/"), "range_end": b64("r0"), "sort_order": "DOWN"},
            {"key": KEY, "sort_order": "9"},
            {"key": KEY, "sort_target": "9"},
            {"key": KEY, "sort_order": 1.5},
            {"key": KEY, "sort_order": True},
            {"key": KEY, "serializable": True},
            {"key": KEY, "revision": 2},
            {"key": KEY, "revision": "3"},
            {"key": KEY, "revision": 100000},
            {"key": KEY, "revision": -1},
            {"key": b64("r/"), "range_end": "AA==", "limit": 1},
            {"key": "AA==", "range_end": "AA==", "count_only": True},
            {"key": b64("z"), "range_end": b64("a")},
            {"key": b64("r/"), "range_end": b64("r0"), "min_mod_revision": 5},
        ),
    ],
    "wrong JSON": [
        *each(
            PUT,
            b"{",
            b"[",
            b"]",
            b"{]",
            b"nul",
            b"null",
            b"true",
            b"5",
            b'"x"',
            b"[]",
            b"[{}]",
            b'{"key"}',
            b'{"key":}',
            b'{"key":"Zm9v",}',
            b'{"key" "Zm9v"}',
            b"{'key':1}",
            b'{"key":"Zm9v"',
            b'{"key":"Zm9',
            b'{"key":"Zm9v"}}',
            b'{"key":"Zm9v"} and more',
            b" \n\t ",
            b"{}{}",
            b"\xff",
            b'{"key":"\xff"}',
            b"\xef\xbb\xbf{}",
            b'{"a":tru}',
            b'{"a":nulL}',
            b'{"a":01}',
            b'{"a":-}',
            b'{"a":1.}',
            b'{"a":1e}',
            b'{"a":.5}',
            b'{"a":+1}',
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b'{"a":"\\x"}',
            b'{"a":"\\u12g4"}',
            b'{"a":"\x01"}',
            b'{"a":"\n"}',
            b'{"a":[1,]}',
            b'{"a":[1 2]}',
            b'{"a":{"b":1}',
            b'{"key":"Zm9v","key":"YmFy"}',
            b"{\"a\":'b'}",
            b"{,}",
            b"{1:2}",
            b"<xml/>",
            b"key=foo",
            b'{"a":"\\ud800","key":"Zm9v"}',
            b'{"a":-0,"key":"Zm9v"}',
            b'{"a":1E+2,"key":"Zm9v"}',
            b"\x00",
            b"~",
        ),
    ],
    "wrong types": [
        *each(
            PUT,
            {"key": 5},
            {"key": True},
            {"key": {}},
            {"key": "!"},
            {"key": "Zm9"},
            {"key": "Zm9v="},
            {"key": "Zg="},
            {"key": "Zg==="},
            {"key": "Zm 9v"},
            {"key": "Zm\n9v"},
            {"key": "Z"},
            {"key": "===="},
            {"key": "Zm9v!Zm9v"},
            {"key": KEY, "prev_kv": "true"},
            {"key": KEY, "prev_kv": 1},
            {"key": KEY, "lease": "x"},
            {"key": KEY, "lease": ""},
            {"key": KEY, "lease": "1 2"},
            {"key": KEY, "lease": 1.5},
            {"key": KEY, "lease": "1.5"},
            {"key": KEY, "lease": True},
            {"key": KEY, "lease": "true"},
            {"key": KEY, "lease": []},
            {"key": KEY, "lease": {}},
            {"key": KEY, "lease": "null"},
            {"key": KEY, "lease": "[1]"},
            {"key": KEY, "lease": "{}"},
            {"key": KEY, "lease": "- 1"},
        ),
        *each(
            RANGE,
            b'{"key":"Zm9v","limit":99999999999999999999}',
            b'{"key":"Zm9v","limit":"9223372036854775808"}',
            b'{"key":"Zm9v","limit":9223372036854775807}',
            b'{"key":"Zm9v","limit":1e2}',
            b'{"key":"Zm9v","limit":-1}',
            b'{"key":"Zm9v","limit":"1e400"}',
            b'{"key":"Zm9v","revision":-9223372036854775809}',
        ),
        *each(
            TXN,
            {"success": {}},
            {"success": 5},
            {"success": [5]},
            {"success": ["x"]},
            {"success": [[]]},
            {"compare": "x"},
            {"success": None},
            {"compare": [True]},
            {"success": [{"request_put": 5}]},
            {"success": [{"request_put": []}]},
        ),
        *each(
            "/v3/maintenance/alarm",
            {"action": "LOOK"},
            {"memberID": -1},
            {"memberID": "18446744073709551616"},
            {"alarm": "9"},
        ),
    ],
    "transactions": [
        *each(
            TXN,
            {},
            {"success": [PUT_FOO]},
            {"compare": [IF_FOO], "success": [GET_FOO], "failure": [PUT_FOO]},
            {
                "compare": [{**IF_FOO, "version": 99}],
                "success": [PUT_FOO],
                "failure": [GET_FOO, {"requestRange": {"key": OTHER}}],
            },
            {"compare": [{"key": KEY, "target": "VALUE", "value": b64("x")}], "success": [PUT_FOO, PUT_FOO]},
            {
                "compare": [{"key": KEY, "target": 3, "value": b64("x")}],
                "success": [{"request_delete_range": {"key": KEY, "prev_kv": True}}],
            },
            {"success": [PUT_FOO, {"request_txn": {"success": [GET_FOO]}}]},
            {"success": [{}]},
            {"success": [None]},
            {
                "compare": [{"key": KEY, "target": "CREATE", "create_revision": "1", "result": "LESS"}],
                "failure": [GET_FOO],
            },
            {
                "compare": [{"key": KEY, "target": "MOD", "modRevision": 3, "result": "NOT_EQUAL"}],
                "success": [GET_FOO],
            },
            {"compare": [{"key": KEY, "target": "LEASE", "lease": 0, "result": 0}], "success": [GET_FOO]},
            {
                "compare": [{"key": KEY, "version": 1, "value": b64("x"), "target": "VERSION"}],
                "success": [GET_FOO],
            },
            {"compare": [{}]},
            {"success": [GET_FOO] * 129},
            {"success": [{**PUT_FOO, **GET_FOO}]},
        ),
    ],
    "deletions and compaction": [
        *each(
            DELETE,
            {"key": b64("r/1"), "prev_kv": True},
            {"key": b64("none")},
            {"key": b64("r/"), "range_end": b64("r0"), "prevKv": True},
            {"key": ""},
            {"key": KEY, "range_end": "AA=="},
        ),
        *each(
            "/v3/kv/compaction",
            {"revision": 3},
            {"revision": "3"},
            {"revision": 2},
            {"revision": 1000000},
            {},
            {"revision": 5, "physical": True},
        ),
        *each(RANGE, {"key": KEY, "revision": 2}, {"key": KEY, "revision": 5}),
    ],
    "leases": [
        *each(
            "/v3/lease/grant",
            {"ID": 77, "TTL": 600},
            {"ID": "77", "TTL": "600"},
            {"TTL": 0, "ID": 78},
            {"TTL": -1, "ID": 79},
            {"TTL": "9000000001", "ID": 80},
            {"TTL": 9000000000, "ID": 81},
        ),
        ask(PUT, {"key": b64("leased"), "lease": "77"}),
        *each("/v3/lease/timetolive", {"ID": 78}, {"ID": 404}, {}),
        *each("/v3/kv/lease/timetolive", {"ID": "404", "keys": True}),
        *each("/v3/lease/leases", {}),
        *each("/v3/kv/lease/leases", b""),
        *each(
            KEEPALIVE,
            {"ID": "77"},
            {"ID": 404},
            {},
            b"",
            b"{",
            b'{"ID":77}{"ID":404}',
            b'{"ID":77} garbage',
            b'{"ID":"x"}',
            b"[]",
        ),
        *each("/v3/lease/revoke", {"ID": 77}, {"ID": 77}),
        *each("/v3/kv/lease/revoke", {"ID": "81"}, {}),
        ask(RANGE, {"key": b64("leased")}),
    ],
    "watches": [
        ask(WATCH, {"create_request": {"key": KEY}}, lines=1),
        ask(WATCH, {"createRequest": {"key": KEY, "watch_id": 7}}, lines=1),
        ask(PUT, {"key": b64("w/1"), "value": "YQ=="}),
        ask(PUT, {"key": b64("w/1"), "value": "Yg=="}),
        ask(DELETE, {"key": b64("w/1")}),
        ask(WATCH, {"create_request": {"key": b64("w/1"), "start_revision": "6", "prev_kv": True}}, lines=2),
        ask(
            WATCH,
            {
                "create_request": {
                    "key": b64("w/"),
                    "range_end": b64("w0"),
                    "start_revision": 6,
                    "filters": ["NOPUT"],
                }
            },
            lines=2,
        ),
        ask(
            WATCH,
            {
                "create_request": {
                    "key": b64("w/"),
                    "range_end": b64("w0"),
                    "start_revision": 6,
                    "filters": [1, "0"],
                }
            },
            lines=1,
        ),
        ask(WATCH, {"create_request": {"key": KEY, "start_revision": 1}}, lines=2),
        ask(WATCH, {"create_request": {"key": b64("b"), "range_end": b64("a")}}, lines=1),
        ask(WATCH, b'{"create_request":{"key":"Zm9v"}}{"progress_request":{}}', lines=2),
        ask(WATCH, b'{"create_request":{"key":"Zm9v"}}\n{"cancel_request":{"watch_id":0}}', lines=2),
        ask(WATCH, b'{"create_request":{"key":"Zm9v"}} garbage', lines=1),
        ask(WATCH, b'{"create_request":{}}', lines=1),
        ask(WATCH, b'{"create_request":null}{"create_request":{"key":"Zm9v"}}', lines=1),
        *each(
            WATCH,
            b"{",
            b"garbage",
            {"create_request": {"key": "!"}},
            {"create_request": []},
            {"create_request": {"filters": ["ALL"]}},
            b"[]",
        ),
    ],
    "locks and elections": [
        *[ask("/v3/lease/grant", {"ID": i, "TTL": 600}) for i in (901, 902)],
        *each(
            "/v3/lock/lock",
            {"name": b64("l"), "lease": 901},
            {"name": b64("l"), "lease": "901"},
            {"name": b64("l2"), "lease": 404},
            {"lease": 901},
        ),
        *each("/v3/lock/unlock", {"key": b64("l/385")}, {"key": b64("l/385")}, {}),
        ask("/v3/lock/lock", {"name": b64("l"), "lease": 902}),
        *each("/v3/election/leader", {"name": b64("e")}, {}),
        *each(
            "/v3/election/campaign",
            {"name": b64("e"), "lease": 901, "value": "YQ=="},
            {"name": b64("e"), "lease": 901, "value": "Yg=="},
            {"name": b64("e2"), "lease": 404},
        ),
        ask("/v3/election/leader", {"name": b64("e")}),
        ask("/v3/election/observe", {"name": b64("e")}, lines=1),
        ask("/v3/election/observe", b"{"),
        *each(
            "/v3/election/proclaim",
            {"value": "Yw=="},
            {"leader": {"name": b64("e"), "key": b64("e/385"), "rev": 1, "lease": 901}, "value": "Yw=="},
            {"leader": {"key": b64("none"), "lease": 901}, "value": "Yw=="},
        ),
        *each(
            "/v3/election/resign",
            {},
            {"leader": {"name": b64("e"), "key": b64("e/385"), "rev": 1, "lease": 901}},
        ),
        *[ask("/v3/lease/revoke", {"ID": i}) for i in (901, 902)],
        ask("/v3/election/leader", {"name": b64("e")}),
    ],
    "paths and methods": [
        *[
            ask(path)
            for path in (
                "/v3/",
                "/v3/kv",
                "/v3/kv/",
                "/v3/kv/puts",
                "/v3/kv/put/",
                "/v3/kv/put/x",
                "/v3/kv/put:x",
                "/v3/kv/:put",
                "/v3alpha/kv/put",
                "/v3beta/kv/put",
                "/v3beta/kv/none",
                "/v3/KV/put",
                "/v3/kv/%70ut",
                "/v3",
                "/v3//kv/put",
                "/v3/./kv/put",
                "/v3/x/../kv/put",
            )
        ],
        *[
            ask(PUT, {"key": KEY}, method=method)
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "post")
        ],
        ask("/v3/kv/none", method="GET"),
        *[
            ask(path, method="GET")
            for path in ("//health", "/./health?serializable=true", "/%68ealth", "/v3/..", "/health/")
        ],
        ask(f"{PUT}?key=Zm9v", {"key": KEY}),
        ask(WATCH, method="GET"),
        ask(PUT, {"key": KEY}, Content_Type="application/x-www-form-urlencoded"),
        ask(PUT, {"key": KEY}, Content_Type="text/xml"),
        ask(
            PUT, {"key": KEY}, Content_Type="application/x-www-form-urlencoded", X_HTTP_Method_Override="get"
        ),
        ask(
            PUT, {"key": KEY}, Content_Type="application/x-www-form-urlencoded", X_HTTP_Method_Override="POST"
        ),
        ask(PUT, {"key": KEY}, X_HTTP_Method_Override="GET"),
        ask(PUT, {"key": KEY}, Accept="text/plain"),
        ask(RANGE, {"key": KEY}, Origin="http://a.example"),
        ask(RANGE, {"key": KEY}, Grpc_Metadata_hasleader="true"),
        *[
            ask(RANGE, {"key": KEY}, Grpc_Metadata_foo_Bin=text)
            for text in ("", "QQ==", "QQ", "QUI", "Q", "QQ=", "QQ=Q", "Q===", "QUJDRA==", "QUJDR!", "!!!")
        ],
        ask(RANGE, {"key": KEY}, Grpc_Metadata_Bin="!"),
        *[
            ask(RANGE, {"key": KEY}, Grpc_Timeout=text)
            for text in ("10S", "5", "S", "1x", "xS", "0S", "-1S", "99999999H")
        ],
    ],
    "users": [
        *[ask(f"/v3/auth/{path}") for path in ("status", "enable", "user/list", "role/list")],
        *each("/v3/auth/authenticate", {"name": "root", "password": "x"}, {}),
        *each("/v3/auth/role/add", {"name": "r"}, {"name": "r"}, {}),
        ask("/v3/auth/role/grant", {"name": "r", "perm": {"permType": "READWRITE", "key": KEY}}),
        ask(
            "/v3/auth/role/grant", {"name": "r", "perm": {"perm_type": 1, "key": "YQ==", "range_end": "Yg=="}}
        ),
        *each("/v3/auth/role/get", {"role": "r"}, {"role": "none"}),
        *each("/v3/auth/user/add", {"name": "u", "password": "p"}, {"name": "u"}, {"name": 5}),
        *each("/v3/auth/user/grant", {"user": "u", "role": "r"}, {"user": "u", "role": "none"}),
        *each("/v3/auth/user/get", {"name": "u"}, {"name": "none"}),
        *[ask(f"/v3/auth/{path}", {"name": "none"}) for path in ("user/delete", "user/changepw")],
        *each("/v3/auth/user/revoke", {"name": "u", "role": "r"}, {"name": "u", "role": "r"}),
        *each("/v3/auth/role/revoke", {"role": "r", "key": KEY}, {"role": "r", "key": "eA=="}),
        *each("/v3/auth/role/delete", {"role": "r"}, {"role": "r"}),
        ask("/v3/auth/user/delete", {"name": "u"}),
        *[ask(f"/v3/auth/{path}") for path in ("disable", "user/list", "role/list")],
    ],
    "sizes": [
        ask(PUT, {"key": b64("large"), "value": b64("v" * 100_000)}),
        ask(RANGE, {"key": b64("large")}),
        ask(PUT, {"key": b64("large"), "value": b64("v" * 1_600_000)}),
        ask(PUT, {"key": b64("large"), "value": b64("v" * 2_200_000)}),
        ask(PUT, b'{"key":"Zm9v","value":"' + b"YWFh" * 50_000),
        ask(PUT, b"[" * 12_000),
        ask(PUT, b'{"a":' * 12_000),
        ask(PUT, b'{"a":' + b"[" * 500 + b"]" * 500 + b',"key":"Zm9v"}'),
        ask(DELETE, {"key": b64("large")}),
    ],
}
