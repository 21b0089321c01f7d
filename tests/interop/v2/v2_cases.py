"""Requests for ``/v2/keys``, good and bad, in an order in which each finds what those before it left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tests.interop.v2.v2_hosts import FORM

Request = tuple[str, str, str | bytes | None, str | None]


def get(path: str) -> Request:
    """A read of a key below ``/t``."""
    return ("GET", f"/v2/keys/t{path}", None, None)


def put(path: str, body: str | bytes | None = "") -> Request:
    """A write with a form."""
    return ("PUT", f"/v2/keys/t{path}", body, FORM)


def post(path: str, body: str | None = "") -> Request:
    """A child in order."""
    return ("POST", f"/v2/keys/t{path}", body, FORM)


def delete(path: str, body: str | None = None) -> Request:
    """A deletion."""
    return ("DELETE", f"/v2/keys/t{path}", body, FORM if body else None)


BASICS: list[Request] = [
    get(""), get("/"), get("/a"), get("/a?quorum=true"), put("/a", "value=hello, etcd"),
    put("/a", "value=I'm changed"), get("/a"), get("/a/"), get("/a/b"), get("?sorted=1"),
    ("HEAD", "/v2/keys/t/a", None, None), ("HEAD", "/v2/keys/t/none", None, None), delete("/a"),
    delete("/a"), get("/a"), put("/a?value=query"), put("/a?value=query", "value=body"),
    put("/a?value=1&value=2", None), put("/u", "value=%F0%9F%98%80+<b>%26%22%5C%0A%00%7F%E2%80%A8"),
    put("/bytes", "value=%ff%fe"), get("/bytes"), ("PUT", "/v2/keys/t/%C3%A9%2Fx%20y", "value=1", FORM),
    get("/%C3%A9?recursive=true"), ("PUT", "/v2/keys/t/json", '{"value":"x"}', "application/json"),
    ("PUT", "/v2/keys/t/none", "value=x", None),
    ("PUT", "/v2/keys/t/multi", "value=x", "multipart/form-data; boundary=x"),
    ("PATCH", "/v2/keys/t/a", None, None), ("OPTIONS", "/v2/keys/t/a", None, None),
    ("GET", "/v2/keys/t//a", None, None), ("GET", "/v2/keys/t/./a/../b", None, None),
    ("PUT", "/v2/keys//t", "value=x", FORM), ("GET", "/v2/keysx", None, None),
    get("/a?wait=true&quorum=true"), get("/none?wait=true&waitIndex=1&quorum=1&recursive=true"),
    put("/nv?noValueOnSuccess=true", "value=aaa"),
    put("/nv?noValueOnSuccess=true&prevExist=true", "value=b"),
    put("/nv?noValueOnSuccess=true&prevExist=false", "value=b"),
    put("/nv?noValueOnSuccess=1&prevValue=b", "value=c"), post("/nvq?noValueOnSuccess=1", "value=c"),
    delete("/nv?noValueOnSuccess=true"), get("/nvq?noValueOnSuccess=true"),
]  # fmt: skip

DIRECTORIES: list[Request] = [
    put("/d?dir=true"), put("/d", "dir=true"), put("/d", "value=x"), put("/d?dir=true", "value=x"),
    get("/d"), put("/e", "dir=true&value=dropped"), get("/e"), put("/d/f", "value=1"),
    put("/d/s/g", "value=2"), get("/d?sorted=true"), get("/d?recursive=true&sorted=true"),
    put("/d/f/x", "value=1"), get("/d/f/x"), delete("/d/f/x"), post("/d/f"), delete("/d"),
    delete("/d?dir=true"), delete("/d?recursive=true"), delete("/d?recursive=true"),
    delete("/e?dir=true"), put("/p/q/r", "dir=true"), delete("/p?dir=true"),
    delete("/p?dir=false&recursive=true"), put("/f1", "value=1"), delete("/f1?dir=true&recursive=true"),
    post("/q", "value=job1"), post("/q", "value=job2"), post("/q", "dir=true"), get("/q?sorted=true"),
    get("/q?recursive=true&sorted=true"), post("/q", "value=j&prevExist=false&prevValue=z"),
    delete("/q?dir=true"), delete("/q?dir=true&recursive=true"), put("/h/_hidden/x", "value=1"),
    put("/h/_f", "value=1"), put("/h/g", "value=2"), get("/h"), get("/h?recursive=true"),
    get("/h/_hidden"), get("/h/_hidden/x"), get("/h/_f"), put("/_h2", "value=1"),
    ("PUT", "/v2/keys", "value=x", FORM), ("PUT", "/v2/keys/", "dir=true", FORM),
    ("DELETE", "/v2/keys/?recursive=true", None, None),
    ("PUT", "/v2/keys/?prevExist=true", "value=x", FORM),
    ("PUT", "/v2/keys/?prevExist=false", "value=x", FORM),
    ("PUT", "/v2/keys/?prevValue=x", "value=x", FORM), ("DELETE", "/v2/keys/?prevValue=x", None, None),
    ("DELETE", "/v2/keys", None, None), ("PUT", "/v2/keys/?refresh=true&ttl=5", None, FORM),
]  # fmt: skip

COMPARED: list[Request] = [
    put("/c?prevExist=false", "value=one"), put("/c?prevExist=false", "value=two"),
    put("/c?prevExist=true", "value=two"), put("/none?prevExist=true", "value=x"),
    put("/c?prevValue=two", "value=three"), put("/c?prevValue=two", "value=four"),
    put("/c", "value=four&prevValue=three"), put("/none?prevValue=x", "value=y"),
    put("/none?prevIndex=3", "value=y"), put("/c?prevIndex=1", "value=five"),
    put("/c?prevIndex=1&prevValue=x", "value=five"), put("/c?prevIndex=0", "value=six"),
    put("/c?prevExist=true&prevValue=six", "value=seven"),
    put("/c?prevExist=false&prevValue=seven", "value=eight"),
    put("/c?prevExist=true&prevIndex=1", "value=8"), put("/c?prevExist=false&prevIndex=1", "value=8"),
    delete("/c?prevValue=zz"), delete("/c?prevIndex=1"), delete("/c", "prevValue=nobody"),
    delete("/c?prevValue=x"), put("/c", "value=<&>"), delete("/c?prevValue=%3C%26"),
    delete("/c?prevValue=%3C%26%3E"), put("/cd?dir=true"), put("/cd?prevValue=x", "value=y"),
    put("/cd?prevExist=true", "value=y"), delete("/cd?prevValue=x"), delete("/cd?prevIndex=5"),
    get("/cd"),
]  # fmt: skip

TIMED: list[Request] = [
    put("/ttl", "value=x&ttl=500"), get("/ttl"), put("/ttl", "value=bar&ttl=&prevExist=true"),
    get("/ttl"), put("/ttl?ttl=400&refresh=true"), get("/ttl"),
    put("/ttl?ttl=300&refresh=true&prevExist=true"), put("/ttl", "ttl=500&refresh=true&prevValue=bar"),
    put("/ttl", "ttl=500&refresh=true&prevValue=none"), put("/nottl", "ttl=500&refresh=true"),
    put("/nottl", "ttl=500&refresh=true&prevExist=true"), put("/ttl", "ttl=500&refresh=true&value="),
    put("/ttl", "ttl=500&refresh=true&prevExist=false"), put("/ttl", "ttl=500&refresh=false&value=new"),
    put("/ttl", "value=x"), get("/ttl"), put("/td?dir=true&ttl=500"), get("/td"),
    put("/td?ttl=300&refresh=true"), put("/td/x", "value=1&ttl=100"), get("/td?recursive=true"),
    post("/td", "value=1&ttl=100"), delete("/td?recursive=true"),
]  # fmt: skip

WRONG: list[Request] = [
    get("/a?x=%zz"), get("/a?%"), get("/a?x=+%+1"), put("/a", "a=%"), put("/a", "a;b=1"),
    get("/a?a=1;recursive=x"),
    get("/a?prevIndex=x&waitIndex=y"), get("/a?waitIndex="), get("/a?waitIndex=-1"),
    get("/a?waitIndex=18446744073709551616"), get("/a?waitIndex=+1"),
    *(get(f"/a?{name}={value}")
      for name in ("recursive", "sorted", "wait", "dir", "quorum", "stream") for value in ("", "2", "tRUE")),
    put("/a?wait=true"), ("HEAD", "/v2/keys/t/a?wait=true", None, None), delete("/a?wait=true"),
    put("/a?wait=true&recursive=x"), put("/a?prevValue="), put("/a", "prevValue="),
    delete("/a?prevValue="), put("/a?noValueOnSuccess=x&ttl=x"),
    *(put("/a", f"value=x&ttl={ttl}") for ttl in ("x", "-1", "1.5", "%2B5", "18446744073709551616")),
    put("/a", "prevExist="), put("/a", "prevExist=x&refresh=x"), put("/a", "refresh=x"),
    put("/a", "refresh=1&value=x"), put("/a", "refresh=1"), put("/a", "refresh=true&ttl="),
    get("/a?refresh=x"), get("/a?ttl=x"), get("/a?prevExist=x"), ("PUT", "/v2/keys/t/a", "x", "x y"),
    ("PUT", "/v2/keys/t/a", "x", "a/b; c"), ("POST", "/v2/keys/t/a", "x", ";"),
]  # fmt: skip

CASES = {
    "basics": BASICS,
    "directories": DIRECTORIES,
    "compared": COMPARED,
    "timed": TIMED,
    "wrong": WRONG,
}


def generated(seed: int, count: int) -> Iterator[Request]:
    """Requests of chance on few keys. What etcd 3.5.1 has wrong is left out: it cannot update a directory."""
    chance = Random(seed)

    def some(name: str, values: Sequence[str], share: float) -> list[str]:
        return [f"{name}={chance.choice(values)}"] if chance.random() < share else []

    for _ in range(count):
        parts = [chance.choice("ab_"), chance.choice("ab")][: chance.randint(0, 2)]
        path = "".join(f"/{part}" for part in parts)
        method = chance.choice(("GET", "PUT", "PUT", "PUT", "POST", "DELETE"))
        query = some("recursive", ("true", "false", "x"), 0.3) + some("dir", ("true", "false"), 0.3)
        query += some("prevValue", ("1", "2", ""), 0.2) + some("prevIndex", ("0", "1", "y"), 0.1)
        form: list[str] = []
        if method == "GET":
            query += [*some("quorum", ("true",), 0.3), "sorted=true"]
        elif method != "DELETE":
            value = some("value", ("1", "2", "3 <&>"), 0.7)
            form = value + some("ttl", ("500", "", "z"), 0.2) + some("noValueOnSuccess", ("true",), 0.1)
            if value:
                query += some("prevExist", ("true", "false"), 0.3)
            else:
                query += some("prevExist", ("false",), 0.2) + some("refresh", ("true",), 0.1)
        body = "&".join(form) if method in ("PUT", "POST") else None
        yield (method, f"/v2/keys/t{path}?{'&'.join(query)}", body, FORM)
