"""What the console did, as commands for a terminal: etcdctl, curl, Python."""

from __future__ import annotations

import base64
import json
import shlex

from tools.console.names import shown


def _word(data: bytes) -> str:
    """An argument of a shell, whatever its bytes are."""
    if not shown(data).startswith("0x"):
        return shlex.quote(data.decode())
    return "$'" + "".join(f"\\x{byte:02x}" for byte in data) + "'"


def _literal(data: bytes) -> str:
    return repr(data.decode()) if not shown(data).startswith("0x") else repr(data)


def etcdctl(endpoint: str, key: bytes, value: bytes | None = None) -> str:
    """Read a key, or write it. Words that begin with a dash would be taken for flags; none holds a zero byte,
    so such a value is read from the standard input."""
    if b"\0" in key:
        return "# etcdctl takes no key with a zero byte"
    name, data = ("get", [key]) if value is None else ("put", [key, value])
    before = ""
    if value is not None and b"\0" in value:
        data, before = [key], f"echo {base64.b64encode(value).decode()} | base64 -d | "
    dashes = ["--"] if any(one.startswith(b"-") for one in data) else []
    return before + " ".join(["etcdctl --endpoints", shlex.quote(endpoint), name, *dashes, *map(_word, data)])


def curl(endpoint: str, key: bytes, value: bytes | None = None) -> str:
    """The same by the JSON gateway."""
    body = {"key": base64.b64encode(key).decode()}
    if value is not None:
        body["value"] = base64.b64encode(value).decode()
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    return f"curl -s {url}/v3/kv/{'range' if value is None else 'put'} -d {shlex.quote(json.dumps(body))}"


def python(endpoint: str, key: bytes, value: bytes | None = None) -> str:
    """The same with muster's client library."""
    call = f"get({_literal(key)})" if value is None else f"put({_literal(key)}, {_literal(value)})"
    return (
        f"from muster_client import sync\nwith sync.Client({endpoint!r}) as client:\n    print(client.{call})"
    )
