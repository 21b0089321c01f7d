"""Rows on what etcd is used for: programs over plain HTTP, their parts at different members and at the proxy.
Each begins with an empty tree.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster.local_cluster import until
from tests.interop.rows.table import Checks
from tests.interop.rows.world import LIMIT_S, Json, Site, Waiting, World
from tests.ports import free_ports

SCENARIOS = Checks()  # of the world
SERVICES = Checks()  # of one site
row = SCENARIOS.row
_GONE_S = 6.0  # an instance that was killed has left the list by then

# An instance of a service: it answers with its name, and keeps its entry alive.
_INSTANCE = """
import http.server, sys, threading, time, urllib.request
url, port, name = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *_):
        pass
def beat():
    while True:
        body = f"value=127.0.0.1:{port}&ttl=3".encode()
        request = urllib.request.Request(f"{url}/v2/keys/services/web/{name}", body, method="PUT")
        try:
            urllib.request.urlopen(request, timeout=30).read()
        except OSError:
            pass
        time.sleep(1)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
threading.Thread(target=beat, daemon=True).start()
server.serve_forever()
"""


def changes(site: Site, key: str, index: int) -> Iterator[Json]:
    """The events at a key and below it from an index on, one wait after the other."""
    while True:
        waiting = Waiting(*site.server.wait(f"/v2/keys{key}?wait=true&recursive=true&waitIndex={index}"))
        body = waiting.body()
        if body:  # else the server ended it: once more
            event: Json = json.loads(body)
            index = int(event["node"]["modifiedIndex"]) + 1
            yield event


def after(site: Site) -> int:
    """The index of the next change."""
    return site.server.index() + 1


def everyone(world: World, count: int) -> list[Site]:
    """So many clients, spread over members and the proxy."""
    sites = [*world.members, world.proxy]
    return [sites[n % len(sites)] for n in range(count)]


def together(*parts: Callable[[], Any]) -> list[Any]:
    """Run programs side by side; what they return."""
    with ThreadPoolExecutor(len(parts)) as pool:
        return [job.result(LIMIT_S * 2) for job in [pool.submit(part) for part in parts]]


class Gateway:
    """It knows the instances by one list and by waits, and asks them in turn."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._turn = 0
        self.known: dict[str, str] = {}

    def look(self) -> None:
        """What is registered now."""
        found = self._site.get("/services/web?recursive=true")
        nodes = found.node.get("nodes", []) if found.status == 200 else []
        self.known = {node["key"].rpartition("/")[2]: node["value"] for node in nodes}

    def follow(self, until_known: set[str]) -> None:
        """Take changes in until these are known, and no others."""
        index = after(self._site)
        self.look()
        events = changes(self._site, "/services/web", index)
        while set(self.known) != until_known:
            event = next(events)
            name = event["node"]["key"].rpartition("/")[2]
            if event["action"] in ("expire", "delete"):
                self.known.pop(name, None)
            else:
                self.known[name] = event["node"]["value"]

    def ask(self) -> str:
        """A request to the instance whose turn it is: its name."""
        self._turn += 1
        names = sorted(self.known)
        address = self.known[names[self._turn % len(names)]]
        with urllib.request.urlopen(f"http://{address}/", timeout=LIMIT_S) as answer:
            return str(answer.read().decode())


@SERVICES.row("S0-011", "S0-012", "S3-006", "S3-007", "S3-008", "S3-009", "S3-015")
def services(site: Site, world: World) -> None:
    with contextlib.ExitStack() as stack:

        def start(name: str) -> subprocess.Popen[bytes]:
            (port,) = free_ports(1)
            line = [sys.executable, "-c", _INSTANCE, site.url, str(port), name]
            process = stack.enter_context(subprocess.Popen(line, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            return process

        start("a")
        second = start("b")
        gateway = Gateway(site)
        gateway.follow({"a", "b"})
        assert {gateway.ask() for _ in range(4)} == {"a", "b"}
        start("c")  # one more, and nobody restarts the gateway
        gateway.follow({"a", "b", "c"})
        assert {gateway.ask() for _ in range(6)} == {"a", "b", "c"}
        took_s: list[float] = []
        # a machine that stalls has more tries
        while not took_s or (took_s[-1] > _GONE_S and len(took_s) < 3):
            second.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            gateway.follow({"a", "c"})
            took_s.append(time.monotonic() - killed)
            assert {gateway.ask() for _ in range(4)} == {"a", "c"}
            second = start("b")  # it comes back, elsewhere
            gateway.follow({"a", "b", "c"})
            assert {gateway.ask() for _ in range(6)} == {"a", "b", "c"}
        assert took_s[-1] <= _GONE_S, took_s


@row("S3-010")
def configuration(world: World) -> None:
    publisher = world.members[0]
    publisher.put("/config/app", "value=one")

    def program(site: Site) -> list[str]:
        read = site.get("/config/app")
        seen = [read.node["value"]]
        if seen == ["three"]:
            return seen
        for event in changes(site, "/config/app", int(read.headers["x-etcd-index"]) + 1):
            seen.append(event["node"]["value"])
            if seen[-1] == "three":
                break
        return seen

    with ThreadPoolExecutor(4) as pool:
        programs = [pool.submit(program, site) for site in everyone(world, 4)]
        publisher.put("/config/app", "value=two")
        publisher.put("/config/app", "value=three")
        for one in programs:
            seen = one.result(LIMIT_S)
            assert seen == ["one", "two", "three"][3 - len(seen) :]


@row("S3-012")
def log_collection(world: World) -> None:
    operator, watcher = world.members[0], world.proxy
    collectors = ["c1", "c2"]
    machines: set[str] = set()
    index = after(operator)

    def shares() -> dict[str, list[str]]:
        return {c: sorted(machines)[n :: len(collectors)] for n, c in enumerate(collectors)}

    for machine in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        operator.put(f"/logs/app/{machine}", "dir=true")
    operator.delete("/logs/app/10.0.0.2?dir=true")
    told = []
    for event in changes(watcher, "/logs/app", index):
        machine = event["node"]["key"].rpartition("/")[2]
        (machines.discard if event["action"] == "delete" else machines.add)(machine)
        told.append(shares())
        if event["action"] == "delete":
            break
    assert told[2] == {"c1": ["10.0.0.1", "10.0.0.3"], "c2": ["10.0.0.2"]}
    assert told[3] == {"c1": ["10.0.0.1"], "c2": ["10.0.0.3"]}


@row("S3-013", "S3-019")
def by_hand(world: World) -> None:
    """A program does what is written at a key by hand, and shows its state at another one."""
    console, program = world.members[2], world.proxy
    console.put("/app/level", "value=info")
    index = after(console)

    def pusher() -> None:
        event = next(changes(program, "/app/level", index))
        program.put("/app/state", f"value=level {event['node']['value']}")

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(pusher)
        console.put("/app/level", "value=debug")
        job.result(LIMIT_S)
    assert console.value("/app/state") == "level debug"


@row("S3-016")
def partitions(world: World) -> None:
    """Consumers share partitions by the sorted list of those that live."""
    sites = everyone(world, 3)

    def share(number: int) -> list[int]:
        live = sites[number].names("/consumers")
        return [p for p in range(6) if live[p % len(live)] == f"c{number}"]

    for number, site in enumerate(sites):
        site.put(f"/consumers/c{number}", "value=up&ttl=500")
    shared = [share(number) for number in range(3)]
    assert sorted(p for one in shared for p in one) == list(range(6))
    assert [len(one) for one in shared] == [2, 2, 2]
    sites[1].delete("/consumers/c1")
    assert sorted(share(0) + share(2)) == list(range(6))


@row("S3-017")
def all_are_told(world: World) -> None:
    waits = [site.wait("/notice?wait=true&recursive=true") for site in [*world.members, world.proxy]]
    world.members[0].put("/notice/board", "value=news")
    assert [waiting.event()["node"]["value"] for waiting in waits] == ["news"] * 4


def _locked(site: Site, me: str, key: str) -> None:
    """Until it is mine."""
    while True:
        made = site.put(f"{key}?prevExist=false", f"value={me}&ttl=300")
        if made.status == 201:
            return
        assert made.refusal[:2] == (412, 105)
        there = int(made.json["index"])
        for event in changes(site, key, there + 1):
            if event["action"] in ("compareAndDelete", "expire", "delete"):
                break


@row("S3-021")
def exclusive_lock(world: World) -> None:
    holders, most, turns = [0], [0], [0]
    guard = threading.Lock()

    def contender(number: int, site: Site) -> None:
        _locked(site, f"me{number}", "/lock")
        with guard:
            holders[0] += 1
            most[0] = max(most[0], holders[0])
            turns[0] += 1
        with guard:
            holders[0] -= 1
        assert site.delete("/lock?prevValue=nobody").refusal[:2] == (
            412,
            101,
        )  # only who holds it lets it go
        assert site.delete(f"/lock?prevValue=me{number}").status == 200

    together(*(lambda n=n, s=s: contender(n, s) for n, s in enumerate(everyone(world, 20))))
    assert (most, turns) == ([1], [20])
    world.members[0].put("/lock?prevExist=false", "value=dead&ttl=1")  # it never comes back
    _locked(world.proxy, "next", "/lock")
    assert world.proxy.value("/lock") == "next"


@row("S3-022")
def sequenced_lock(world: World) -> None:
    served: list[str] = []
    keys: list[str] = []

    def client(site: Site, mine: str) -> None:
        name = mine.rpartition("/")[2]
        while True:
            index = after(site)
            before = [other for other in site.names("/seq") if other < name]
            if not before:
                break
            for event in changes(site, f"/seq/{before[-1]}", index):
                if event["action"] == "delete":
                    break
        served.append(mine)
        site.delete(mine)

    sites = everyone(world, 20)
    for number, site in enumerate(sites):
        keys.append(site.post("/seq", f"value={number}").node["key"])
    together(*(lambda s=s, k=k: client(s, k) for s, k in reversed(list(zip(sites, keys, strict=True)))))
    assert served == sorted(keys)


@row("S3-023")
def queue(world: World) -> None:
    done: list[tuple[str, str]] = []
    jobs = [f"job{n}" for n in range(16)]

    def producer(site: Site, mine: list[str]) -> None:
        for job in mine:
            assert site.post("/queue", f"value={job}").status == 201

    def consumer(site: Site) -> None:
        while len(done) < len(jobs):
            until(lambda: site.names("/queue") or len(done) == len(jobs))
            first = site.get("/queue?sorted=true").json.get("node", {}).get("nodes", [])[:1]
            if not first:
                continue
            taken = site.delete(f"{first[0]['key']}?prevIndex={first[0]['modifiedIndex']}")
            if taken.status == 200:
                done.append((first[0]["key"], first[0]["value"]))

    sites = everyone(world, 5)
    together(
        lambda: producer(sites[0], jobs[:8]),
        lambda: producer(sites[1], jobs[8:]),
        *(lambda s=s: consumer(s) for s in sites[2:]),
    )
    assert sorted(value for _, value in done) == sorted(jobs)  # each once
    for mine in (jobs[:8], jobs[8:]):  # a producer's come in its order, by their keys
        assert [value for _, value in sorted(done) if value in mine] == mine


@row("S3-024")
def counting_barrier(world: World) -> None:
    ready, log = "/barrier/condition", []
    world.members[0].put(ready, "value=0")
    index = after(world.members[0])

    def worker(site: Site) -> None:
        log.append("ready")
        while True:
            there = site.ask("GET", f"/v2/keys{ready}?quorum=true").node
            more = f"value={int(there['value']) + 1}"
            if site.put(f"{ready}?prevIndex={there['modifiedIndex']}", more).status == 200:
                break
        for event in changes(site, ready, index):
            if event["node"]["value"] == "5":
                break
        log.append("runs")

    together(*(lambda s=s: worker(s) for s in everyone(world, 5)))
    assert log == ["ready"] * 5 + ["runs"] * 5


@row("S3-025", "S3-026")
def signals(world: World) -> None:
    """Others wait until a certain task is in the queue, or a controller gives the sign."""
    log: list[str] = []
    index = after(world.members[0])

    def worker(site: Site, sign: str) -> None:
        next(changes(site, sign, index))
        log.append(sign)

    with ThreadPoolExecutor(6) as pool:
        signs = ("/queue/first", "/queue/start")
        jobs = [pool.submit(worker, site, sign) for sign in signs for site in everyone(world, 3)]
        world.members[1].put("/queue/other", "value=1")
        assert log == []
        world.members[2].put("/queue/first", "value=1")
        for job in jobs[:3]:
            job.result(LIMIT_S)
        assert log == ["/queue/first"] * 3
        world.proxy.put("/queue/start", "value=go")
        for job in jobs[3:]:
            job.result(LIMIT_S)
    assert log[3:] == ["/queue/start"] * 3


@row("S3-029")
def election(world: World) -> None:
    sites = everyone(world, 3)
    key = "/leader"

    def campaign(number: int) -> bool:
        return sites[number].put(f"{key}?prevExist=false", f"value=n{number}&ttl=300").status == 201

    won = together(*(lambda n=n: campaign(n) for n in range(3)))
    assert won.count(True) == 1
    first = won.index(True)
    sites[first].put("/result", "value=full index")
    others = [number for number in range(3) if number != first]
    sites[first].put(key, "ttl=1&refresh=true")
    # it is dead, and its key ends: exactly one of the others is next
    until(lambda: sites[others[0]].get(key).status == 404)
    won = together(*(lambda n=n: campaign(n) for n in others))
    assert won.count(True) == 1
    assert [site.value("/result") for site in sites] == ["full index"] * 3
