"""Rows on waiting, over HTTP. Each check is given a site whose tree is empty."""

from __future__ import annotations

import contextlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor

from tests.interop.rows.table import Checks
from tests.interop.rows.world import Site, World

WAITS = Checks()
row = WAITS.row


@row("S0-007")
def poll(site: Site, world: World) -> None:
    waiting = site.wait("/x?wait=true")
    site.put("/x", "value=1")
    event = waiting.event()
    assert (event["action"], event["node"]["value"]) == ("set", "1")


@row("S0-014")
def followed(site: Site, world: World) -> None:
    site.put("/services/web/a", "value=1")
    known = {
        node["key"]: node["value"] for node in site.get("/services/web?recursive=true").node["nodes"]
    }
    index = site.latest.index + 1
    site.put("/services/web/b", "value=2")
    site.delete("/services/web/a")
    for _ in range(2):
        event = site.wait(f"/services/web?wait=true&recursive=true&waitIndex={index}").event()
        node = event["node"]
        index = node["modifiedIndex"] + 1
        if event["action"] == "delete":
            del known[node["key"]]
        else:
            known[node["key"]] = node["value"]
    assert known == {"/services/web/b": "2"}


@row("S1-035")
def headers_first(site: Site, world: World) -> None:
    waiting = site.wait("/foo?wait=true")
    response = waiting.response
    assert (response.status, response.getheader("Transfer-Encoding")) == (200, "chunked")
    assert response.getheader("X-Etcd-Index")
    site.put("/foo", "value=one")
    site.put("/foo", "value=two")
    assert waiting.event()["node"]["value"] == "one"  # one event, then the end


@row("S1-036")
def recursive(site: Site, world: World) -> None:
    waiting = site.wait("/d?wait=true&recursive=true")
    site.put("/d/x/y", "value=1")
    assert waiting.event()["node"]["key"] == "/d/x/y"


@row("S1-037")
def of_the_past(site: Site, world: World) -> None:
    first = site.put("/foo", "value=one").node["modifiedIndex"]
    site.put("/foo", "value=two")
    event = site.wait(f"/foo?wait=true&waitIndex={first}").event()
    assert event["node"]["value"] == "one"


@row("S1-038")
def of_the_future(site: Site, world: World) -> None:
    now = site.put("/foo", "value=zero").node["modifiedIndex"]
    waiting = site.wait(f"/foo?wait=true&waitIndex={now + 2}")
    site.put("/foo", "value=one")
    site.put("/foo", "value=two")
    assert waiting.event()["node"]["value"] == "two"


def _forgotten(world: World) -> int:
    """An index that is behind the last 1,000 events."""
    site = world.members[0]
    first = int(site.put("/foo", "value=one").node["modifiedIndex"])

    def many(part: int) -> None:
        """On one connection: 1,100 of their own would be slow."""
        with contextlib.closing(
            http.client.HTTPConnection(site.server.address, timeout=60)
        ) as connection:
            for _ in range(138):
                connection.request("PUT", f"/v2/keys/many/{part}?value=x")
                with connection.getresponse() as answer:
                    answer.read()
                    assert answer.status in (200, 201)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(many, range(8)))
    return first


@row("S1-039", "S1-040")
def history(site: Site, world: World) -> None:
    first = world.once("1,100 events", lambda: _forgotten(world))
    site.put("/foo", "value=one")
    site.settle()
    found = site.ask("GET", f"/v2/keys/foo?wait=true&waitIndex={first}")
    assert found.refusal[:2] == (400, 401)
    assert found.json["message"] == "The event in requested index is outdated and cleared"
    read = site.get("/foo")
    waiting = site.wait(f"/foo?wait=true&waitIndex={int(read.headers['x-etcd-index']) + 1}")
    site.put("/foo", "value=two")
    assert waiting.event()["node"]["value"] == "two"


@row("S1-041")
def loop(site: Site, world: World) -> None:
    first = site.put("/loop", "value=begin").node["modifiedIndex"]

    def write() -> None:
        for n in range(100):
            site.put("/loop", f"value={n}")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen, index = [], first + 1
        while len(seen) < 100:
            with contextlib.closing(
                http.client.HTTPConnection(site.server.address, timeout=60)
            ) as connection:
                connection.request("GET", f"/v2/keys/loop?wait=true&waitIndex={index}")
                node = site_event(connection)
            seen.append(node["value"])
            index = int(node["modifiedIndex"]) + 1
        writing.result()
    assert seen == [str(n) for n in range(100)]


def site_event(connection: http.client.HTTPConnection) -> dict[str, str]:
    """The node of the event that a request on this connection waits for."""
    with connection.getresponse() as response:
        node: dict[str, str] = json.loads(response.read())["node"]
        return node
