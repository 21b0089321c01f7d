"""Waits of version 2, as scenarios: each returns what its waits have seen."""

from __future__ import annotations

import http.client
from collections.abc import Callable

from tests.interop.v2.v2_hosts import FORM, Answer, Server, Shown


class Scene:
    """Writes go to one host, waits to another one of the same cluster, which may be the same."""

    def __init__(self, writes: Server, waits: Server) -> None:
        self._writes, self._waits = writes, waits
        self._open: list[http.client.HTTPConnection] = []
        writes.ask("DELETE", "/v2/keys/w?recursive=true")
        writes.begin()
        waits.base = writes.base

    def put(self, key: str, body: str = "value=x", method: str = "PUT") -> None:
        """A change that succeeds."""
        answer = self._writes.ask(method, f"/v2/keys/w{key}", body, FORM)
        assert answer.status in (200, 201), answer

    def delete(self, key: str) -> None:
        """A deletion that succeeds."""
        assert self._writes.ask("DELETE", f"/v2/keys/w{key}").status == 200

    def index(self, plus: int = 0) -> int:
        """The index that the next change gets, or a later one."""
        return self._writes.index() + 1 + plus

    def wait(self, key: str) -> http.client.HTTPResponse:
        """A wait whose head has come: nothing after this is missed, and nothing before it seen."""
        self._waits.index()  # through the log: its host has what was written at the other one
        connection, response = self._waits.wait(f"/v2/keys/w{key}")
        self._open.append(connection)
        return response

    def shown(self, response: http.client.HTTPResponse, body: bytes) -> Shown:
        """The answer, as it is compared."""
        headers = {name.lower(): value for name, value in response.getheaders()}
        return self._waits.shown(Answer(response.status, headers, body.decode()))

    def whole(self, response: http.client.HTTPResponse) -> Shown:
        """The answer when it has ended."""
        return self.shown(response, response.read())

    def line(self, response: http.client.HTTPResponse) -> Shown:
        """The next event of a stream."""
        return self.shown(response, response.readline())

    def close(self) -> None:
        """All waits end."""
        for connection in self._open:
            connection.close()


Scenario = Callable[[Scene], list[Shown]]


def _poll(scene: Scene) -> list[Shown]:
    plain, deep, above = (
        scene.wait("/a?wait=true"),
        scene.wait("/d?wait=true&recursive=true"),
        scene.wait("/d?wait=true"),
    )
    scene.put("/a")
    scene.put("/d/s/k")
    scene.put("/d", "ttl=100&dir=true&prevExist=false", "POST")
    scene.delete("/d?recursive=true")
    return [scene.whole(plain), scene.whole(deep), scene.whole(above)]


def _actions(scene: Scene) -> list[Shown]:
    found = []
    for key, body, method in (
        ("/a?prevExist=false", "value=1", "PUT"),
        ("/a?prevExist=true", "value=2", "PUT"),
        ("/a?prevValue=2", "value=3", "PUT"),
        ("/a", "value=4&ttl=100", "PUT"),
        ("/q", "value=5", "POST"),
    ):
        waits = scene.wait(f"{key.partition('?')[0]}?wait=true&recursive=true")
        scene.put(key, body, method)
        found.append(scene.whole(waits))
    for key in ("/a?prevValue=4", "/q?recursive=true"):
        waits = scene.wait(f"{key.partition('?')[0]}?wait=true")
        scene.delete(key)
        found.append(scene.whole(waits))
    return found


def _hidden(scene: Scene) -> list[Shown]:
    above, at, inside = (
        scene.wait("?wait=true&recursive=true"),
        scene.wait("/_h?wait=true"),
        scene.wait("/d/_i?wait=true&recursive=true"),
    )
    scene.put("/_h")
    scene.put("/d/_i/x")
    scene.put("/seen")
    return [scene.whole(above), scene.whole(at), scene.whole(inside)]


def _gone_below(scene: Scene) -> list[Shown]:
    scene.put("/d/x/y")
    waits = [scene.wait(f"{key}?wait=true") for key in ("/d/x/y", "/d/x", "/d")]
    none = scene.wait("/d/none?wait=true")
    scene.delete("/d?recursive=true")
    scene.put("/d/none")
    return [scene.whole(response) for response in (*waits, none)]


def _past(scene: Scene) -> list[Shown]:
    first = scene.index()
    for value in "abc":
        scene.put("/p", f"value={value}")
    scene.put("/r")
    scene.put("/dir/k")
    found = [scene.whole(scene.wait(f"/p?wait=true&waitIndex={first + n}")) for n in range(3)]
    found.append(scene.whole(scene.wait(f"/dir?wait=true&recursive=true&waitIndex={first}")))
    later = scene.wait(f"/p?wait=true&waitIndex={scene.index(1)}")
    scene.put("/p", "value=early")
    scene.put("/p", "value=late")
    return [*found, scene.whole(later)]


def _refresh(scene: Scene) -> list[Shown]:
    scene.put("/r", "value=1&ttl=100")
    first = scene.index()
    waits, past = scene.wait("/r?wait=true"), scene.wait(f"/r?wait=true&waitIndex={first}")
    scene.put("/r", "refresh=true&ttl=200")
    scene.put("/r", "value=2")
    return [scene.whole(waits), scene.whole(past)]


def _expiry(scene: Scene) -> list[Shown]:
    found = []
    for key, body in (("/e", "value=1&ttl=1"), ("/ed", "dir=true&ttl=1")):
        second = scene.index(1)  # the change gets the index before
        here = scene.wait(f"{key}?wait=true&waitIndex={second}")
        above = scene.wait(f"?wait=true&recursive=true&waitIndex={second}")
        scene.put(key, body)
        found += [scene.whole(here), scene.whole(above)]
    return found


def _stream(scene: Scene) -> list[Shown]:
    stream = scene.wait("?wait=true&recursive=true&stream=true")
    found = []
    for key in ("/a", "/b/c", "/a"):
        scene.put(key)
        found.append(scene.line(stream))
    scene.delete("/b?recursive=true")
    return [*found, scene.line(stream)]


SCENARIOS: dict[str, Scenario] = {
    "poll": _poll, "actions": _actions, "hidden": _hidden, "gone below": _gone_below, "past": _past,
    "refresh": _refresh,
    "expiry": _expiry, "stream": _stream,
}  # fmt: skip
