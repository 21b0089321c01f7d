"""A client for the examples: the JSON gateway of the v3 API, by Python's standard library alone.

A program of your own takes one of etcd's clients. This one is short enough to be read.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A key with its value, and the revision at which it came to be."""

    key: str
    value: str
    created: int


@dataclass(frozen=True)
class Event:
    """A change: ``value`` is None if the key is gone."""

    key: str
    value: str | None
    revision: int


def b64(text: str) -> str:
    """How the gateway takes bytes."""
    return base64.b64encode(text.encode()).decode()


def text(data: str | None) -> str:
    """What the gateway's bytes say."""
    return base64.b64decode(data or "").decode()


def below(prefix: str) -> Json:
    """The range of all keys with a prefix (which ends in an ASCII character)."""
    return {"key": b64(prefix), "range_end": b64(prefix[:-1] + chr(ord(prefix[-1]) + 1))}


def pair(kv: Json) -> Pair:
    """A key of an answer."""
    return Pair(text(kv["key"]), text(kv.get("value")), int(kv["create_revision"]))


class Cluster:
    """Some hosts; the first that is reached is asked."""

    def __init__(self, endpoints: str) -> None:
        self._endpoints = [endpoint.removeprefix("http://") for endpoint in endpoints.split(",")]

    def _open(self, path: str, message: Json, timeout_s: float | None) -> http.client.HTTPResponse:
        for endpoint in self._endpoints:
            connection = http.client.HTTPConnection(endpoint, timeout=10)
            try:
                connection.connect()
            except OSError:
                continue
            connection.sock.settimeout(timeout_s)
            try:
                connection.request("POST", f"/v3/{path}", json.dumps(message))
                answer = connection.getresponse()
            except BaseException:
                connection.close()
                raise
            if answer.status != 200:
                raise RuntimeError(answer.read().decode())
            return answer
        raise ConnectionError("no host is reached")

    def call(self, path: str, message: Json, timeout_s: float | None = None) -> Json:
        """One request, one answer; a lock may take any time."""
        with self._open(path, message, timeout_s) as answer:
            found: Json = json.loads(answer.read())
            return found

    def put(self, key: str, value: str, lease: int = 0) -> int:
        """Write; returns the revision."""
        answer = self.call("kv/put", {"key": b64(key), "value": b64(value), "lease": lease})
        return int(answer["header"]["revision"])

    def get(self, key: str) -> str | None:
        """A value; None if there is none."""
        found = self.call("kv/range", {"key": b64(key)}).get("kvs")
        return pair(found[0]).value if found else None

    def all(self, prefix: str) -> tuple[list[Pair], int]:
        """All keys with a prefix, the oldest first, and the revision at which they were read."""
        answer = self.call("kv/range", below(prefix) | {"sort_target": "CREATE", "sort_order": "ASCEND"})
        return [pair(kv) for kv in answer.get("kvs", [])], int(answer["header"]["revision"])

    def delete(self, key: str) -> bool:
        """Delete; whether it was there."""
        return int(self.call("kv/deleterange", {"key": b64(key)}).get("deleted", 0)) > 0

    def txn(self, compare: list[Json], success: list[Json], failure: list[Json] | None = None) -> Json:
        """All of ``success`` if every comparison holds, else all of ``failure``."""
        return self.call("kv/txn", {"compare": compare, "success": success, "failure": failure or []})

    def watch(self, prefix: str, start: int) -> Iterator[Event]:
        """The changes of all keys with a prefix, from a revision on, for ever."""
        request = {"create_request": below(prefix) | {"start_revision": start}}
        with self._open("watch", request, None) as answer:
            while line := answer.readline():
                for event in json.loads(line)["result"].get("events", []):
                    kv = event["kv"]
                    value = None if event.get("type") == "DELETE" else text(kv.get("value"))
                    yield Event(text(kv["key"]), value, int(kv["mod_revision"]))

    def lease(self, ttl_s: int) -> Lease:
        """Keys that are put with it go when nobody renews it for so long."""
        return Lease(self, int(self.call("lease/grant", {"TTL": ttl_s})["ID"]), ttl_s)


class Lease:
    """A lease that is renewed in the background until it ends, or until its owner fails."""

    def __init__(self, cluster: Cluster, lease_id: int, ttl_s: int) -> None:
        self.id = lease_id
        self._cluster = cluster
        self._stopped = threading.Event()
        self._ttl_s = ttl_s
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        pause_s = self._ttl_s / 3
        while not self._stopped.wait(pause_s):
            pause_s = min(1, self._ttl_s / 3)  # until it is renewed
            try:
                answer = self._cluster.call("lease/keepalive", {"ID": self.id}, self._ttl_s / 3)
            except (OSError, RuntimeError, ValueError, http.client.HTTPException):
                continue  # a host is down, or has no leader
            if (found := answer.get("result")) is not None:
                if "TTL" not in found:
                    return  # the lease is gone
                pause_s = self._ttl_s / 3

    def fail(self) -> None:
        """Renew it no more, as if the program had died."""
        self._stopped.set()

    def end(self) -> None:
        """Give it up: its keys go at once."""
        self._stopped.set()
        self._cluster.call("lease/revoke", {"ID": self.id})


def absent(key: str) -> Json:
    """The comparison: there is no such key."""
    return {"key": b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": 0}


def equals(key: str, value: str) -> Json:
    """The comparison: the key has this value."""
    return {"key": b64(key), "target": "VALUE", "result": "EQUAL", "value": b64(value)}


def putting(key: str, value: str, lease: int = 0) -> Json:
    """A put in a transaction."""
    return {"request_put": {"key": b64(key), "value": b64(value), "lease": lease}}


def deleting(key: str) -> Json:
    """A delete in a transaction."""
    return {"request_delete_range": {"key": b64(key)}}
