"""What the flags of TLS between hosts come to, in etcd's words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.settings import PeerTls
from tests.authority import Authority
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.config.tls import check_files
from tools.muster.host.identity import auto_tls
from tools.muster.host.identity.bootstrap import identity_of
from tools.muster.host.identity.restoring import NewHost

HOST = "https://127.0.0.1:2380"
SECURE = (f"--listen-peer-urls={HOST}", f"--initial-advertise-peer-urls={HOST}")
SUITE = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
PAIR = ("--peer-cert-file=/c", "--peer-key-file=/k")


def build(*args: str) -> config.ServerConfig:
    return config.build(resolve(SERVER_FLAGS, args, {}))


def test_flags_become_settings_and_the_key_is_the_certificates() -> None:
    found = build(
        *SECURE, *PAIR, "--peer-client-cert-file=/cc", "--peer-client-key-file=/ck",
        "--peer-client-cert-auth", "--peer-trusted-ca-file=/ca", "--peer-crl-file=/crl",
        "--peer-cert-allowed-cn=a,b", f"--cipher-suites={SUITE}", "--tls-max-version=TLS1.2",
    )  # fmt: skip
    assert found.peer_tls == PeerTls(
        "/c", "/k", "/cc", "/ck", True, "/ca", "/crl", ("a", "b"), cipher_suites=(SUITE,),
        max_version="TLS1.2")
    assert found.peer_key_file == ""


def test_without_a_certificate_the_key_is_curves() -> None:
    found = build("--peer-key-file=/k")
    assert (found.peer_key_file, found.peer_tls) == ("/k", None)


def test_over_http_files_are_passed_over_with_a_warning() -> None:
    found = build(*PAIR)
    assert (found.peer_key_file, found.peer_tls) == ("", None)
    assert found.warnings == (
        "scheme is HTTP while key and cert files are present; ignoring key and cert files: http://localhost:2380",
    )


def test_a_key_of_peer_keys_over_http_goes_without_a_warning_of_certificates() -> None:
    """There are none: "ignoring peer auto TLS since certs given" was said to a good set of flags."""
    assert build("--peer-key-file=/k", "--peer-auto-tls").warnings == ()
    assert build(*SECURE, *PAIR, "--peer-auto-tls").warnings[0].startswith("ignoring peer auto TLS")
    assert build(*PAIR, "--peer-auto-tls").warnings[0].startswith("ignoring peer auto TLS")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (SECURE, "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented"),
        (SECURE, "(https peer URLs want --peer-cert-file and --peer-key-file, or --peer-auto-tls)"),
        ((*SECURE, "--peer-key-file=/k"), "KeyFile and CertFile must both be present[key: /k, cert: ]"),
        ((*SECURE, "--peer-key-file=/k", "--peer-auto-tls"),
         "KeyFile and CertFile must both be present[key: /k, cert: ] (--peer-key-file and --peer-cert-file; "
         "a key of muster peer-keys goes with http peer URLs)"),
        ((*SECURE, "--peer-cert-file=/c"), "KeyFile and CertFile must both be present[key: , cert: /c]"),
        ((*SECURE, *PAIR, "--peer-client-cert-file=/x"),
         "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: /x]"),
        ((*SECURE, *PAIR, "--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"),
         'AllowedCN and AllowedHostname are mutually exclusive (cn="a", hostname="b")'),
        ((SECURE[0], *PAIR),
         "peers of one cluster talk over https, all of them, or over http: some peer URLs differ"),
        (("--listen-peer-urls=https://0.0.0.0:2380", SECURE[1], "--peer-auto-tls"), "or say --peer-insecure"),
        ((*SECURE, *PAIR, "--peer-trusted-ca-file=/ca", "--peer-insecure"), "exclude each other"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(args: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(*args)
    assert words in str(refused.value)


def test_an_authority_lets_a_port_face_the_world() -> None:
    everywhere = ("--listen-peer-urls=https://0.0.0.0:2380", "--initial-advertise-peer-urls=https://10.0.0.1:2380")
    assert build(*everywhere, *PAIR, "--peer-trusted-ca-file=/ca").warnings == ()


def test_automatic_ones_are_made_and_kept(tmp_path: Path) -> None:
    asked = build(*SECURE, "--peer-auto-tls", f"--data-dir={tmp_path}", "--tls-min-version=TLS1.3")
    first = auto_tls.with_certificate(asked).peer_tls
    assert first is not None
    assert first.min_version == "TLS1.3"
    assert first.cert_file == str(tmp_path / "fixtures" / "peer" / "cert.pem")
    assert not first.knows_peers
    check_files(first)
    assert auto_tls.with_certificate(asked).peer_tls == first


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("x", "127.0.0.1")
    check_files(PeerTls(str(pair.cert), str(pair.key)))
    own = str(pair.cert), str(pair.key)
    for wrong in (PeerTls("/none", own[1]), PeerTls(*own, trusted_ca_file="/none")):
        with pytest.raises(ConfigError) as refused:
            check_files(wrong)
        assert "open /none: no such file or directory" in str(refused.value)


def test_a_host_is_restored_to_https_urls_before_it_has_certificates() -> None:
    new = NewHost("x", "d", f"x={HOST}", "t", HOST, 1, 0)
    assert identity_of(build(*new.arguments())).peers[0].peer_urls == (HOST,)
    mixed = replace(new, initial_cluster=f"x={HOST},y=http://127.0.0.1:2390")
    with pytest.raises(ConfigError, match="all of them, or over http"):
        identity_of(build(*mixed.arguments()))


@pytest.mark.parametrize("url", ["unix://a:1", "UNIX://a:1", "HTTPS://127.0.0.1:2380"])
def test_a_host_is_restored_to_urls_of_every_scheme(url: str) -> None:
    """It was said to listen by http for peers, unlike its cluster."""
    new = NewHost("x", "d", f"x={url}", "t", url, 1, 0)
    assert identity_of(build(*new.arguments())).peers[0].name == "x"


def test_a_proxy_looks_at_the_members_urls_alone() -> None:
    """It listens for no peers: the default --listen-peer-urls, by http, kept it from starting."""
    proxy = ("--proxy=on", *PAIR, "--peer-trusted-ca-file=/ca")
    tls = build(*SECURE, *PAIR, "--peer-trusted-ca-file=/ca").peer_tls
    found = build(*proxy, f"--initial-cluster=h={HOST}")
    assert (found.peer_tls, found.peer_key_file) == (tls, "")
    assert build(*proxy, f"--initial-cluster=h={HOST}", "--listen-peer-urls=http://0.0.0.0:1").peer_tls == tls
    with pytest.raises(ConfigError, match="all of them, or over http"):
        build(*proxy, f"--initial-cluster=h={HOST},i=http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="all of them, or over http"):
        config.as_member(found)


def test_the_list_of_a_used_data_directory_decides_on_no_certificate() -> None:
    """Hosts of before had https URLs; or this one is a proxy, whose file names the members."""
    for proxy in ((), ("--proxy=on",)):
        flags = resolve(SERVER_FLAGS, (*proxy, f"--initial-cluster=h={HOST}"), {})
        found = config.build(flags, lambda data_dir: True)
        assert (found.peer_tls, found.warnings) == (None, ())
        assert config.as_member(found).peer_tls is None


@pytest.mark.parametrize("advertised", [(), ("--initial-advertise-peer-urls=http://127.0.0.1:2380",)])
def test_a_used_data_directory_needs_no_advertised_peer_urls(advertised: tuple[str, ...]) -> None:
    """A restart without them, or with those of before, was refused."""
    for proxy in ((), ("--proxy=on",)):
        flags = resolve(SERVER_FLAGS, (*proxy, SECURE[0], *PAIR, *advertised), {})
        found = config.as_member(config.build(flags, lambda data_dir: True))
        assert found.peer_tls == build(*SECURE, *PAIR).peer_tls


def test_a_proxy_that_finds_its_members_takes_what_their_urls_ask_for() -> None:
    found = build("--proxy=on", *PAIR)
    assert config.with_members(found, [HOST]).peer_tls == build(*SECURE, *PAIR).peer_tls
    assert config.with_members(found, ["http://127.0.0.1:1"]).peer_tls is None
    keyed = build("--proxy=on", "--peer-key-file=/k")
    assert config.with_members(keyed, ["http://h:1"]).peer_key_file == "/k"
    with pytest.raises(ConfigError, match=r"^cannot dial https://127.0.0.1:2380: .*--peer-cert-file and"):
        config.with_members(build("--proxy=on"), [HOST])
