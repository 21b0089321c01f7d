"""``--discovery-srv`` at a first start: the initial cluster is what a domain's SRV records name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.name
import dns.resolver
import pytest
import structlog

from tests.name_server import serving
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host.identity import bootstrap, by_srv

ZONE = {
    "_etcd-server._tcp.three.test.": ["0 1 23801 localhost.", "0 0 23800 localhost.", "9 0 23802 localhost."],
    "_etcd-server-blue._tcp.three.test.": ["0 0 23800 localhost."],
    "_etcd-server-ssl._tcp.secure.test.": ["0 0 23800 localhost."],
    "_etcd-server._tcp.nowhere.test.": ["0 0 23800 nosuch.invalid."],
    "_etcd-server._tcp.six.test.": ["0 0 23800 host.six.test."],
    "_etcd-server-ssl._tcp.odd.test.": ["0 0 0 ."],
    "_etcd-server._tcp.odd.test.": ["0 0 23800 localhost.", r"0 0 23801 a\032b.test."],
    "_etcd-server-ssl._tcp.none.test.": ["0 0 0 ."],
}


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Its port."""
    with serving(ZONE, monkeypatch) as port:
        yield port


def found(tmp_path: Path, domain: str, *more: str, number: int = 0) -> config.ServerConfig:
    flags = (f"--name=h{number}", f"--data-dir={tmp_path / str(number)}", f"--discovery-srv={domain}",
             f"--initial-advertise-peer-urls=http://127.0.0.1:{23800 + number}", *more)  # fmt: skip
    built = config.build(resolve(SERVER_FLAGS, flags, {}))
    return by_srv.with_cluster(built, structlog.get_logger("test"))


def test_a_host_knows_itself_by_its_address_and_gives_the_others_numbers(tmp_path: Path) -> None:
    assert found(tmp_path, "three.test").initial_cluster_text == (
        "0=http://localhost:23801,h0=http://localhost:23800,1=http://localhost:23802"
    )
    assert found(tmp_path, "three.test", "--discovery-srv-name=blue").initial_cluster_text == (
        "h0=http://localhost:23800"
    )


def test_a_host_knows_itself_by_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def of_six(host: str, *args: Any, **more: Any) -> Any:
        return resolve("::1" if host == "host.six.test" else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", of_six)
    own = "--initial-advertise-peer-urls=http://[::1]:23800"
    settings = found(tmp_path, "six.test", own)
    assert settings.initial_cluster_text == "h0=http://host.six.test:23800"
    bootstrap.prepare_data_dir(settings.data_dir)
    assert bootstrap.establish(settings)[1]  # the name has the address that is advertised


def test_a_name_with_addresses_of_both_kinds_has_that_of_ipv4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def of_both(host: str, port: int, *args: Any, **more: Any) -> Any:
        if host != "host.six.test":
            return resolve(host, port, *args, **more)
        return [at for own in ("::1", "127.0.0.1") for at in resolve(own, port, *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", of_both)
    settings = found(tmp_path, "six.test")
    assert settings.initial_cluster_text == "h0=http://host.six.test:23800"
    bootstrap.prepare_data_dir(settings.data_dir)
    assert bootstrap.establish(settings)[1]


def test_a_name_that_dns_cannot_have_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--initial-advertise-peer-urls: no such host"):
        found(tmp_path, "six.test", f"--initial-advertise-peer-urls=http://{'a' * 70}:1")


def test_records_of_no_host_are_passed_over(tmp_path: Path) -> None:
    assert found(tmp_path, "odd.test").initial_cluster_text == "h0=http://localhost:23800"
    with pytest.raises(ConfigError, match=r"for _etcd-server-ssl lookup \.: no such host; "):
        found(tmp_path, "none.test")


@pytest.mark.parametrize("domain", ["three", "three.test", "three.test."])
@pytest.mark.parametrize("dots", [None, 2, 5])
def test_a_domain_may_be_below_a_search_domain_of_the_machine(
    tmp_path: Path, domain: str, dots: int | None
) -> None:
    resolver = dns.resolver.get_default_resolver()
    resolver.search = [dns.name.from_text(text) for text in ("broken.test", "other.test", "test")]
    resolver.ndots = dots
    assert len(dict(found(tmp_path, domain).initial_cluster)) == 3


def test_hosts_of_one_domain_have_the_same_ids(tmp_path: Path) -> None:
    identities = []
    for number in range(3):
        settings = found(tmp_path, "three.test", number=number)
        bootstrap.prepare_data_dir(settings.data_dir)
        identities.append(bootstrap.establish(settings)[0])
    assert len({i.cluster_id for i in identities}) == 1
    assert len({i.member_id for i in identities}) == 3
    assert {tuple(p.member_id for p in i.peers) for i in identities} == {
        tuple(p.member_id for p in identities[0].peers)
    }


def test_what_etcd_refuses_is_refused_in_its_words(tmp_path: Path, name_server: int) -> None:
    with pytest.raises(ConfigError, match=r'cannot find local etcd member "h9" in SRV records$'):
        found(tmp_path, "three.test", number=9)
    with pytest.raises(ConfigError) as nothing:
        found(tmp_path, "nosuch.test")
    server = f"nosuch.test on 127.0.0.1:{name_server}: no such host"
    assert str(nothing.value) == (
        "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl "
        f"lookup _etcd-server-ssl._tcp.{server}; error querying DNS SRV records for _etcd-server "
        f"lookup _etcd-server._tcp.{server}"
    )
    with pytest.raises(ConfigError, match=r"^multiple discovery or bootstrap flags are set"):
        found(tmp_path, "three.test", "--initial-cluster=h0=http://127.0.0.1:23800")
    with pytest.raises(ConfigError, match=r"DNS SRV records for _etcd-server lookup nosuch\.invalid\."):
        found(tmp_path, "nowhere.test")


def test_a_proxy_need_not_find_itself(tmp_path: Path) -> None:
    flags = (f"--data-dir={tmp_path}", "--discovery-srv=three.test", "--proxy=on")
    built = config.build(resolve(SERVER_FLAGS, flags, {}))
    log = structlog.get_logger("test")
    assert by_srv.with_cluster(built, log, member=False).initial_cluster_text == (
        "0=http://localhost:23801,1=http://localhost:23800,2=http://localhost:23802"
    )
    with pytest.raises(ConfigError, match="cannot find local etcd member"):
        by_srv.with_cluster(built, log)


def test_records_of_peers_by_tls_are_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scheme mismatch with expected peer http://127\.0\.0\.1:23800; "):
        found(tmp_path, "secure.test")
    with pytest.raises(ConfigError, match='cannot find local etcd member "h1" in SRV records'):
        found(tmp_path, "secure.test", number=1)


def test_hosts_that_talk_by_tls_find_each_other_by_their_records(tmp_path: Path) -> None:
    own = ("--listen-peer-urls=https://127.0.0.1:23800", "--initial-advertise-peer-urls=https://127.0.0.1:23800")
    settings = found(tmp_path, "secure.test", "--peer-auto-tls", *own)
    assert settings.initial_cluster_text == "h0=https://localhost:23800"


def test_without_the_flag_nobody_is_asked(tmp_path: Path) -> None:
    built = config.build(resolve(SERVER_FLAGS, (f"--data-dir={tmp_path}",), {}))
    assert by_srv.with_cluster(built, structlog.get_logger("test")) is built
