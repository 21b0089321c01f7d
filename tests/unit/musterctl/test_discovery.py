"""Endpoints out of SRV records, from a name server of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import dns.resolver
import pytest

from tests.name_server import serving
from tools.musterctl.client import session
from tools.musterctl.command import Exit, Flags, Invocation, find
from tools.musterctl.commands import table
from tools.musterctl.discovery import endpoints_of
from tools.musterctl.v2.client import connect
from tools.musterctl.v2.line import parse
from tools.musterctl.v2.table import GLOBAL

ZONE = {
    "_etcd-client._tcp.plain.test.": [
        "10 0 2379 b.plain.test.",
        "0 1 2379 a.plain.test.",
        "0 5 2380 c.plain.test.",
    ],
    "_etcd-client-ssl._tcp.both.test.": ["0 0 2379 s.both.test."],
    "_etcd-client._tcp.both.test.": ["0 0 2378 p.both.test."],
    "_etcd-client-ssl-blue._tcp.both.test.": ["0 0 1 blue.both.test."],
}


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Its port."""
    with serving(ZONE, monkeypatch) as port:
        yield port


def test_endpoints_come_by_https_first_and_in_the_order_of_their_records() -> None:
    assert endpoints_of("plain.test", "", insecure=True) == [
        "http://c.plain.test.:2380", "http://a.plain.test.:2379", "http://b.plain.test.:2379"]  # fmt: skip
    assert endpoints_of("both.test", "", insecure=True) == [
        "https://s.both.test.:2379",
        "http://p.both.test.:2378",
    ]
    assert endpoints_of("both.test", "blue", insecure=True) == ["https://blue.both.test.:1"]


def test_endpoints_in_clear_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert endpoints_of("both.test", "", insecure=False) == ["https://s.both.test.:2379"]
    assert 'ignoring discovered insecure endpoint "http://p.both.test.:2378"' in capsys.readouterr().err


def test_a_machine_without_a_resolver_asks_a_name_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended with a traceback: early in a boot, in a container without a network."""

    def none() -> None:
        raise dns.resolver.NoResolverConfiguration("no nameservers")

    monkeypatch.setattr(dns.resolver, "default_resolver", None)
    monkeypatch.setattr(dns.resolver, "reset_default_resolver", none)
    asked: list[list[str]] = []

    def resolve(resolver: dns.resolver.Resolver, *_: object, **__: object) -> None:
        asked.append([str(server) for server in resolver.nameservers])
        raise dns.resolver.NoNameservers

    monkeypatch.setattr(dns.resolver.Resolver, "resolve", resolve)
    with pytest.raises(Exit, match=r"on 127\.0\.0\.1:53: server misbehaving"):
        endpoints_of("plain.test", "", insecure=True)
    assert asked[0] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("domain", "reason"), [("nosuch.test", "no such host"), ("broken.test", "server misbehaving")]
)
def test_a_domain_without_records_is_told_in_etcdctls_words(
    domain: str, reason: str, name_server: int
) -> None:
    with pytest.raises(Exit) as end:
        endpoints_of(domain, "x", insecure=True)
    server = f"on 127.0.0.1:{name_server}: {reason}"
    assert (end.value.code, end.value.message) == (
        1,
        f"dns lookup errors: lookup _etcd-client-ssl-x._tcp.{domain} {server} and "
        f"lookup _etcd-client-x._tcp.{domain} {server}",
    )


def _session(*line: str) -> tuple[tuple[str, ...], str]:
    command, rest = find(table.root(), [*line, "get", "a"])
    flags = Flags(command.all_flags())
    args = flags.parse(rest)
    config = session(Invocation(command, flags, args, list(line))).config
    return config.endpoints, config.server_name


def test_the_flags_of_a_command_line() -> None:
    assert _session() == (("127.0.0.1:2379",), "")
    found = "https://s.both.test.:2379"
    assert _session("--discovery-srv=both.test")[0][0] == found
    # certificates must name the domain then, as etcdctl wants it
    assert _session("--discovery-srv=both.test", "--insecure-discovery=false") == (
        (found,),
        "both.test",
    )
    # nothing is left: the flag's endpoints
    assert _session("-d", "plain.test", "--insecure-discovery=false") == (
        ("127.0.0.1:2379",),
        "plain.test",
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-D plain.test --insecure-discovery", ["http://a.plain.test.:2379", "http://b.plain.test.:2379"]),
        ("-D both.test", ["https://s.both.test.:2379"]),
        ("-D plain.test", ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]),
        ("-D plain.test --endpoints h:1", ["http://h:1"]),
    ],
)
def test_the_v2_api_takes_them_too(line: str, found: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given, _ = parse(GLOBAL, [*line.split(), "--no-sync", "get", "a"])
    assert set(found) <= set(connect(given).endpoints)
    ignored = 'ignoring discovered insecure endpoint "http://a.plain.test.:2379"\n'
    assert (ignored in capsys.readouterr().err) == (line.startswith("-D plain") and "insecure" not in line)


def test_the_v2_api_takes_a_services_name_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCDCTL_DISCOVERY_SRV_NAME", "blue")
    given, _ = parse(GLOBAL, ["-D", "both.test", "--no-sync", "get", "a"])
    assert connect(given).endpoints == ["https://blue.both.test.:1"]


def test_the_v2_api_tells_of_a_domain_without_records(capsys: pytest.CaptureFixture[str]) -> None:
    given, _ = parse(GLOBAL, ["-D", "nosuch.test", "get", "a"])
    with pytest.raises(Exit) as end:
        connect(given)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("dns lookup errors: lookup _etcd-client-ssl._tcp.nosuch.test ")
