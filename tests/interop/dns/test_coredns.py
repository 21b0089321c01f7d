"""CoreDNS answers from services that are registered in muster, by its plugin for etcd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import pytest
from muster_client.sync import Client

from tests.cluster.local_cluster import until
from tests.interop.hosts import Hosts
from tests.interop.toolchain import (
    BUILD_LIMIT_S,
    HERE,
    Program,
    cache,
    call,
    checked,
    need,
    skip_without,
    unavailable,
)
from tests.ports import free_ports

skip_without("go")
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def coredns() -> Path:
    need("go")
    with cache("dns") as folder:
        if (done := call(["go", "mod", "download"], cwd=HERE / "dns", limit_s=BUILD_LIMIT_S)).returncode:
            unavailable(f"go mod download: {done.stderr.strip()}")
        program = folder / "coredns"
        checked(
            ["go", "build", "-buildvcs=false", "-mod=readonly", "-o", program, "."], cwd=HERE / "dns",
            limit_s=BUILD_LIMIT_S)  # fmt: skip
    return program


class Names:
    """A running CoreDNS."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, name: str, kind: str) -> list[str]:
        """Its answers, in order of their text; none while it starts."""
        question = dns.message.make_query(name, kind)
        try:
            answer = dns.query.udp(question, "127.0.0.1", port=self._port, timeout=2)
        except (OSError, dns.exception.DNSException):
            return []
        wanted = dns.rdatatype.from_text(kind)
        return sorted(str(row) for found in answer.answer if found.rdtype == wanted for row in found)


@pytest.fixture
def names(coredns: Path, hosts: Hosts, tmp_path: Path) -> Iterator[Names]:
    port = free_ports(1)[0]
    endpoints = " ".join(f"http://{endpoint}" for endpoint in hosts.endpoints)
    file = tmp_path / "Corefile"
    file.write_text(
        f"services.test:{port} {{\n  bind 127.0.0.1\n  errors\n"
        f"  etcd {{\n    path /skydns\n    endpoint {endpoints}\n  }}\n}}\n"
    )
    with Program([coredns, "-conf", file]):
        yield Names(port)


def test_a_service_has_a_name_as_long_as_its_lease(names: Names, hosts: Hosts) -> None:
    with Client(hosts.endpoints) as client:
        lease = client.lease(30)
        for number in (1, 2):
            service = {"host": f"10.0.0.{number}", "port": 8080 + number, "priority": 10}
            client.put(f"/skydns/test/services/web/{number}", json.dumps(service), lease=lease)
        client.put("/skydns/test/services/docs", json.dumps({"host": "web.services.test", "text": "pages"}))
        both = ["10.0.0.1", "10.0.0.2"]
        until(lambda: names.ask("web.services.test", "A") == both)
        assert names.ask("1.web.services.test", "A") == ["10.0.0.1"]
        assert names.ask("web.services.test", "SRV") == [
            "10 50 8081 1.web.services.test.", "10 50 8082 2.web.services.test."]  # fmt: skip
        assert names.ask("docs.services.test", "TXT") == ['"pages"']
        hosts.kill(hosts.leader())
        until(lambda: names.ask("web.services.test", "A") == both)
        lease.revoke()
        until(lambda: names.ask("web.services.test", "A") == [])
        assert names.ask("docs.services.test", "TXT") == ['"pages"'], "it has no lease"
