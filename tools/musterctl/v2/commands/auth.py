"""auth, user and role."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from cluster.gotext import canonical_path, json_string, raw
from tools.musterctl.v2.client import (
    Client,
    Refused,
    ask_password,
    connect,
    expect,
    parsed,
    refuse,
    tell_endpoints,
)
from tools.musterctl.v2.exchange import Request, RequestError, Response
from tools.musterctl.v2.start import Run

_JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


def _connect(run: Run) -> Client:
    client = connect(run.globals)
    tell_endpoints(client, run.globals)  # again, as etcdctl does
    return client


def _done(request: Callable[[], T]) -> T:
    try:
        return request()
    except (RequestError, Refused) as error:
        refuse(error)


def _no_arguments(run: Run) -> None:
    if run.args:
        refuse("No arguments accepted")


def _name(run: Run, what: str) -> str:
    if len(run.args) != 1:
        refuse(f"Please provide a {what}")
    return run.args[0]


def _told(answer: Response, *statuses: int) -> dict[str, Any]:
    """The answer's content; Refused with the server's words."""
    if answer.status not in statuses:
        raise Refused(str(parsed(answer.body).get("message", "")))
    return parsed(answer.body) if answer.body else {}


def _names(names: list[str] | None) -> str:
    return "null" if names is None else f"[{','.join(map(json_string, names))}]"


def enable(run: Run) -> None:
    _switch(run, "PUT", "Enabled")


def disable(run: Run) -> None:
    _switch(run, "DELETE", "Disabled")


def _switch(run: Run, method: str, done: str) -> None:
    _no_arguments(run)
    client = _connect(run)
    _done(lambda: _told(client.ask(Request(method, "/v2/auth/enable")), 200, 201))
    print(f"Authentication {done}")


def _path(kind: str, name: str) -> str:
    return f"/v2/auth/{kind}/{quote(raw(name), safe='$&+,:;=@')}"


def _put_user(
    client: Client, name: str, password: str, verb: str = "", roles: list[str] | None = None, *,
    new: bool = False,
) -> None:  # fmt: skip
    """``new``: it may be a new one. Where it may not and is, etcdctl fails silently."""
    members = [f'"user":{json_string(name)}']
    if password:
        members.append(f'"password":{json_string(password)}')
    members.append('"roles":null')
    if verb:
        members.append(f'"{verb}":{_names(roles)}')
    body = raw("{" + ",".join(members) + "}")
    statuses = (200, 201) if new else (200,)
    _told(client.ask(Request("PUT", _path("users", name), "", body, _JSON)), *statuses)


def user_add(run: Run) -> None:
    """Make a user, or give an existing one another password."""
    given = _name(run, "username")
    client = _connect(run)
    name, colon, password = given.partition(":")
    if not colon:
        password = ask_password("New password: ")
    _done(lambda: _put_user(client, name, password, new=True))
    print(f"User {name} created")


def user_passwd(run: Run) -> None:
    name = _name(run, "username")
    client = _connect(run)
    password = ask_password("New password: ")
    _done(lambda: _put_user(client, name, password))
    print("Password updated")


def user_get(run: Run) -> None:
    name = _name(run, "username")
    client = _connect(run)
    found = _done(lambda: _told(client.ask(Request("GET", _path("users", name))), 200))
    roles = [
        str(role.get("role", "") if isinstance(role, dict) else role) for role in found.get("roles") or []
    ]
    # etcdctl joins as many empty names first
    print(f"User: {found.get('user', '')}\nRoles: {' ' * len(roles)}{' '.join(roles)}")


def _all(client: Client, kind: str, strict: bool) -> list[str]:
    answer = client.ask(Request("GET", f"/v2/auth/{kind}", headers=_JSON))
    if strict:
        expect(answer, 200)
    single = kind.removesuffix("s")
    found = _told(answer, 200).get(kind) or []
    return [str(one.get(single, "") if isinstance(one, dict) else one) for one in found]


def _list(run: Run, kind: str, strict: bool) -> None:
    _no_arguments(run)
    client = _connect(run)
    for name in _done(lambda: _all(client, kind, strict)):
        print(name)


def _remove(run: Run, kind: str, what: str) -> None:
    name = _name(run, what)
    client = _connect(run)
    _done(lambda: _told(client.ask(Request("DELETE", _path(f"{kind.lower()}s", name))), 200))
    print(f"{kind} {name} removed")


def user_list(run: Run) -> None:
    _list(run, "users", strict=False)


def user_remove(run: Run) -> None:
    _remove(run, "User", "username")


def user_grant(run: Run) -> None:
    _user_roles(run, "grant")


def user_revoke(run: Run) -> None:
    _user_roles(run, "revoke")


def _user_roles(run: Run, verb: str) -> None:
    roles = [role for text in run.options.strings("roles") for role in text.split(",")]
    if not roles:
        refuse("No roles specified; please use `--roles`")
    name = _name(run, "username")
    client = _connect(run)
    _done(lambda: _put_user(client, name, "", verb, roles))
    print(f"User {name} updated")


def _role(client: Client, name: str) -> dict[str, Any]:
    return _told(client.ask(Request("GET", _path("roles", name))), 200)


def _put_role(client: Client, name: str, change: str = "") -> dict[str, Any]:
    none = '{"kv":{"read":null,"write":null}}'
    body = raw(f'{{"role":{json_string(name)},"permissions":{none}{change}}}')
    return _told(client.ask(Request("PUT", _path("roles", name), "", body, _JSON)), 200, 201)


def role_add(run: Run) -> None:
    name = _name(run, "role name")
    client = _connect(run)
    try:
        _role(client, name)
    except (RequestError, Refused):
        _done(lambda: _put_role(client, name))
        print(f"Role {name} created")
    else:
        refuse(f"Role {name} already exists")


def role_get(run: Run) -> None:
    name = _name(run, "role name")
    client = _connect(run)
    role = _done(lambda: _role(client, name))
    kv = (role.get("permissions") or {}).get("kv") or {}
    print(f"Role: {role.get('role', '')}")
    for title in ("Read", "Write"):
        print(f"KV {title}:")
        for pattern in kv.get(title.lower()) or []:
            print(f"\t{pattern}")


def role_list(run: Run) -> None:
    _list(run, "roles", strict=True)


def role_remove(run: Run) -> None:
    _remove(run, "Role", "role name")


def role_grant(run: Run) -> None:
    _permit(run, "grant")


def role_revoke(run: Run) -> None:
    _permit(run, "revoke")


def _permit(run: Run, verb: str) -> None:
    path = run.options.string("path")
    if not path:
        refuse("No path specified; please use `--path`")
    if canonical_path(path) != path:
        refuse(f"Not canonical path; please use `--path={canonical_path(path)}`")
    read, write, both = (run.options.switch(name) for name in ("read", "write", "readwrite"))
    if read + write + both != 1:
        refuse("Please specify exactly one of --read, --write or --readwrite")
    name = _name(run, "role name")
    client = _connect(run)
    before = _done(lambda: _role(client, name))
    reads, writes = [path] if read or both else None, [path] if write or both else None
    change = f',"{verb}":{{"kv":{{"read":{_names(reads)},"write":{_names(writes)}}}}}'
    after = _done(lambda: _put_role(client, name, change))
    if before == after:
        sys.stdout.write(f"Role unchanged; already {'granted' if verb == 'grant' else 'revoked'}")
    print(f"Role {name} updated")
