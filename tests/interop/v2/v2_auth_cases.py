"""Requests for ``/v2/auth``, and for keys while users count: each finds what those before it left."""

from __future__ import annotations

import base64
import json

from tests.interop.v2.v2_hosts import FORM

JSON = "application/json"
#: method, path, body, type of the body, Authorization
Request = tuple[str, str, str | bytes | None, str | None, str]


def basic(name: str, password: str) -> str:
    """An Authorization field."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


ROOT = basic("root", "rp")
ALICE = basic("alice", "ap")


def user(name: str, who: str = "", **fields: object) -> Request:
    """A PUT of a user."""
    return ("PUT", f"/v2/auth/users/{name}", json.dumps({"user": name, **fields}), JSON, who)


def role(name: str, who: str = "", **fields: object) -> Request:
    """A PUT of a role."""
    return ("PUT", f"/v2/auth/roles/{name}", json.dumps({"role": name, **fields}), JSON, who)


def kv(read: object = None, write: object = None) -> dict[str, object]:
    """Permissions."""
    return {"kv": {"read": read, "write": write}}


def get(path: str, who: str = "") -> Request:
    """A read of users and roles."""
    return ("GET", f"/v2/auth/{path}", None, None, who)


def delete(path: str, who: str = "") -> Request:
    """A deletion of users and roles."""
    return ("DELETE", f"/v2/auth/{path}", None, None, who)


def put(path: str, body: str | bytes | None) -> Request:
    """Some body."""
    return ("PUT", f"/v2/auth/{path}", body, JSON, "")


def key(method: str, path: str, who: str = "", body: str | None = None) -> Request:
    """A request for a key."""
    return (method, f"/v2/keys{path}", body, FORM if body else None, who)


NEW: list[Request] = [
    get("enable"), get("users"), get("roles"), get("users/"), get("roles/"), get("users/alice"),
    get("roles/r"),
    get("roles/root"), get("users/root"), ("DELETE", "/v2/auth/enable", None, None, ""),
    ("PUT", "/v2/auth/enable", None, None, ""), get(""), ("GET", "/v2/auth", None, None, ""), get("x"),
    get("enable/"), get("users/a/b"), get("roles/a/b"), get("users/a/"), get("users/%61lice"),
    get("roles/a/./b"),
    ("HEAD", "/v2/auth/enable", None, None, ""), ("POST", "/v2/auth/enable", "", None, ""),
    ("PUT", "/v2/auth/users", "{}", JSON, ""), ("DELETE", "/v2/auth/roles/", None, None, ""),
    ("POST", "/v2/auth/users/a", "{}", JSON, ""), ("HEAD", "/v2/auth/roles/a", None, None, ""),
    ("OPTIONS", "/v2/auth/users", None, None, ""), get("users/%3C%26%3E"), get("users/%ff"),
    get("enable", ALICE), get("users", ALICE),
]  # fmt: skip

BODIES: list[Request] = [
    *(put(f"{kind}/x", body) for kind in ("users", "roles") for body in (
        None, "", "{", "[]", "1", '"x"', "null", "{}", "x", "{]", '{"user":"x"', '{"user":"y","role":"y"}',
        '{"user":1,"role":1}', '{"user":null,"role":null}', '{"user":"x","role":"x","grant":1}',
        '{"user":"x","role":"x","grant":[1]}', '{"user":"x","role":"x","roles":{},"permissions":[]}',
        '{"user":"x","role":"x","permissions":{"kv":[]}}', '{"user":"x","password":7,"role":"x","revoke":7}',
        b'{"user":"\xff","role":"\xff"}', "[" * 9000,
    )),
    user("x", password=""), user("x", roles=["a"]), user("x", grant=["a"]), user("x", revoke=["a"]),
    user("x", roles=["a"], grant=["b"]), role("x", grant=kv(["/a"])), role("x", revoke=kv(["/a"])),
    role("x", permissions=kv(["/a"]), grant=kv(["/b"])), role("root"), role("root", grant=kv(["/b"])),
    delete("users/x"), delete("roles/x"), delete("roles/root"), delete("users/root"),
    put("roles/y", '{"role":"x","role":"y","permissions":{"KV":{"read":["/a"]},"kv":{"write":["/b"]}},'
                   '"Permi\\u017f\\u017fions":{"kv":{"read":["/c"]}}}'),
    put("roles/y", '{"role":"y","grant":{"kv":{"read":["/a"]},"kv":{"read":["/d"]}},'
                   '"grant":{"kv":{"write":["/e"]}}}'),
    get("roles/y"), delete("roles/y"),
    put("roles/y", '{"role":"y","role":null,"permissions":{"kv":{"read":["/a"],"write":["/b"],"write":null},'
                   '"kv":null},"permissions":null,"grant":{"kv":{"read":["/c"]}},"grant":null}'),
    put("roles/y", '{"role":"y","revoke":null,"revoke":{"kv":{"read":["/a"]}}}'),
    put("roles/y", '{"role":"y","grant":{"kv":{"write":["/f","/g"],"write":["/h"],"write":[null,null]}}}'),
    put("roles/y", '{"role":5,"role":"y"}'), put("roles/y", '{"role":"y","grant":7,"grant":null}'),
    get("roles/y"), delete("roles/y"),
]  # fmt: skip

USERS: list[Request] = [
    user("alice", password="ap"), get("users/alice"), user("alice", password="ap2"),
    user("alice", roles=["r"]),
    user("alice", password="p", roles=["r"]), user("alice", grant=["r1", "r2"]), get("users/alice"),
    user("alice", grant=["r1"]), user("alice", revoke=["r3"]), user("alice", grant=["r3", "r3"]),
    user("alice", grant=["r3"], revoke=["r3"]), user("alice", revoke=["r2", "r2"]),
    user("alice", revoke=["r2"]),
    user("alice"), user("alice", password="ap", grant=[], revoke=[]),
    user("bob", password="bp", roles=["b", "a", "a"]),
    user("carl", password="cp", roles=[]), user("carl"), user("carl"), user("dora", password="dp"),
    user("dora"),
    get("users"), user("bob", grant=["c"]), user("bob"),
    ("PUT", "/v2/auth/users/eve", '{"USER":"eve","PassWord":"x","x":[{}],"roles":null} more', "text/plain",
     ""),
    ("PUT", "/v2/auth/users/f%20%C3%A9%3C", '{"user":"f \\u00e9<","password":"x"}', JSON, ""),
    get("users/f%20%C3%A9%3C"), user("_hid", password="x"), get("users/_hid"), get("users"),
    user("root", password="rp"), get("users/root"), user("root", revoke=["root"]), get("users/root"),
    user("root", grant=["root"]), user("root", grant=["r"]), user("root", revoke=["r"]), user("root"),
    delete("users/eve"), delete("users/eve"), get("users/eve"), delete("users/root"),
    user("root", password="rp", roles=["z"]),
    user("root", password="rp"), user("alice", revoke=["r1"]), user("alice", grant=["ra"]),
    get("users/alice"),
    user("mute", password="x" * 80), get("users"),
]  # fmt: skip

ROLES: list[Request] = [
    role("r", permissions=kv(["/b", "/a", "/a"], None)), get("roles/r"), role("r"), get("roles"),
    role("r", grant=kv(["/c"])), get("roles/r"), role("r", grant=kv(["/a"])),
    role("r", grant=kv(None, ["/w", "/w"])),
    role("r", grant=kv(None, ["/w"])), role("r", revoke=kv(["/none"], ["/none"])),
    role("r", revoke=kv(["/a"], ["/w"])),
    role("r", grant=kv(["/d"]), revoke=kv(["/d"])), role("none"), role("none", revoke=kv(["/x"])),
    role("none", revoke=kv(["/x"])), role("n2", permissions=kv()), role("n2", grant=kv(["/x*"], ["/x*"])),
    role("n3", grant=kv(), revoke={}), get("roles/n3"), role("n3", grant=kv(["/x"])), get("roles/n3"),
    role("n4", permissions=None, grant=None), role("<&>"), get("roles/%3C&%3E"), get("roles"),
    delete("roles/n4"), delete("roles/n4"), delete("roles/%3C&%3E"), get("roles"),
    user("alice", grant=["r"]),
    get("users/alice"), role("ra", permissions=kv(["/a/*", "/exact"], ["/a/w*", "/only"])), get("users"),
    get("users/alice"),
]  # fmt: skip


def judged(who: str) -> list[Request]:
    """What somebody may and may not. Each request of a user costs etcd a comparison of his password."""
    return [
        *(key("GET", f"{path}?sorted=true", who)
          for path in ("/a", "/a/", "/a/x", "/ab", "/exact", "/exact/", "/other")),
        *(key("GET", f"{path}?recursive=true&sorted=true", who) for path in ("/a/", "/exact", "/other/")),
        *(key("PUT", path, who, "value=1") for path in ("/a/x", "/a/wx", "/only", "/other")),
        *(key("PUT", f"{path}?recursive=true", who, "value=1") for path in ("/a/w", "/only")),
        key("DELETE", "/exact", who), key("DELETE", "/a/w?recursive=true", who),
        key("POST", "/a/wq", who, "value=1"), key("POST", "/a/q", who, "value=1"),
        key("HEAD", "/other", who), key("GET", "/other?quorum=true", who),
        key("PUT", "/other?prevExist=x", who, "value=1"), key("GET", "/other/x?wait=true&waitIndex=1", who),
        get("users", who), delete("users/nobody", who), ("PUT", "/v2/auth/users/x", "{", JSON, who),
        ("PUT", "/v2/auth/enable", None, None, who), ("DELETE", "/v2/members/12", None, None, who),
    ]  # fmt: skip


FREE: list[Request] = [
    key("GET", ""), key("GET", "/?sorted=true"), key("GET", "/?recursive=true&sorted=true"), get("enable"),
    get("roles/ra"),
    ("PUT", "/v2/auth/roles/x", "{", JSON, ""), ("GET", "/v2/members/leader", None, None, ""),
    ("PUT", "/v2/members/xyz", "{}", JSON, ""), ("POST", "/v2/members", "{", JSON, ""),
    ("GET", "/v2/auth/users/a/b", None, None, ""), ("GET", "/v2/machines", None, None, ""),
    ("GET", "/v2/stats/leader", None, None, ""), ("POST", "/v2/auth/users", "", None, ""),
]  # fmt: skip

ENABLED: list[Request] = [
    ("PUT", "/v2/auth/enable", None, None, ""), ("PUT", "/v2/auth/enable", None, None, ROOT), get("enable"),
    get("users"), get("roles", ROOT), *FREE, *judged(""), *judged(ALICE), key("GET", "/?sorted=true", ROOT),
    key("PUT", "/other", ROOT, "value=1"), ("PUT", "/v2/auth/enable", None, None, ROOT),
    ("POST", "/v2/members", "{", JSON, ROOT),
    key("GET", "/other/?recursive=true&sorted=true", ROOT),
    *(key("GET", "/a/x", who) for who in (
        basic("alice", "wrong"), basic("nobody", "x"), basic("alice", ""), "Basic", "Basic ",
        "Basic x", "Basic eA==", "Bearer x", "basic " + ALICE[6:], "BASIC " + ALICE[6:],
        "Basic  " + ALICE[6:],
        basic("a/b", "x"), basic("alice", "ap:x"), ALICE[:-1],
    )),
    get("roles", basic("root", "x")), get("enable", basic("root", "x")), delete("users/root", ROOT),
    role("guest", ROOT, revoke=kv(["/*"], ["/*"])),
    role("guest", ROOT, grant=kv(["/a/x", "/open/*"], ["/open/*"])),
    key("GET", "/a/x"), key("GET", "/a/?sorted=true"), key("PUT", "/a/x", "", "value=1"),
    key("PUT", "/open/1", "", "value=1"), key("GET", "/open/?recursive=true"), key("GET", "/open"),
    delete("roles/guest", ROOT), key("GET", "/a/x"), key("GET", "/a/x", ALICE),
    user("alice", ROOT, password="new"), key("GET", "/a/x", ALICE),
    key("GET", "/a/x", basic("alice", "new")),
    user("alice", ROOT, revoke=["ra"]), key("GET", "/a/x", basic("alice", "new")),
    user("alice", ROOT, grant=["root"]), key("GET", "/other", basic("alice", "new")),
    get("roles", basic("alice", "new")), delete("users/alice", basic("alice", "new")),
    key("GET", "/a/x", basic("alice", "new")), key("GET", "/a/x", basic("mute", "x" * 80)),
    ("DELETE", "/v2/auth/enable", None, None, ""), ("DELETE", "/v2/auth/enable", None, None, ROOT),
    ("DELETE", "/v2/auth/enable", None, None, ROOT), get("enable"), key("GET", "/a/x"), delete("users/root"),
    key("GET", "/a/x", basic("alice", "new")), get("users"), get("roles"),
]  # fmt: skip

PARTS = {"new": NEW, "bodies": BODIES, "users": USERS, "roles": ROLES, "enabled": ENABLED}
