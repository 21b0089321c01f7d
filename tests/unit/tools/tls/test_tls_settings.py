"""What the flags of TLS come to, in etcd's words."""

from __future__ import annotations

import contextlib
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from muster_client.wire.endpoints import trusting

from cluster.settings import Tls
from proxy.tls.contexts import make_context
from tests.authority import Authority
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.config.tls import check_files
from tools.muster.host.identity import auto_tls
from tools.muster.host.specs import console_specs

SECURE = ("--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379")
PAIR = ("--cert-file=/c", "--key-file=/k")


def build(*args: str) -> config.ServerConfig:
    return config.build(resolve(SERVER_FLAGS, args, {}))


def test_flags_of_tls_become_its_settings() -> None:
    found = build(
        *SECURE,
        *PAIR,
        "--client-cert-auth",
        "--trusted-ca-file=/ca",
        "--client-crl-file=/crl",
        "--tls-min-version=TLS1.2",
        "--tls-max-version=TLS1.3",
        "--client-cert-allowed-hostname=a,b",
        "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA,"
        "TLS_AES_128_GCM_SHA256",
    )
    assert found.tls == Tls(
        "/c",
        "/k",
        True,
        "/ca",
        "/crl",
        (),
        ("a", "b"),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",),
        "TLS1.2",
        "TLS1.3",
    )
    assert found.warnings == (
        "the TLS cipher suite TLS_RSA_WITH_RC4_128_SHA is not available here, and is left out",
    )


@pytest.mark.parametrize(
    ("own", "asks"),
    [
        ("client", ("--trusted-ca-file=/ca",)),
        ("client", ("--client-cert-auth",)),
        ("peer", ("--peer-trusted-ca-file=/ca",)),
        ("peer", ("--peer-client-cert-auth",)),
    ],
)
@pytest.mark.parametrize("kind", ["cn", "hostname"])
def test_a_list_of_names_that_no_certificate_is_asked_for_is_told(
    own: str, asks: tuple[str, ...], kind: str
) -> None:
    """All clients, or all peers, were refused without a word."""
    peer = "https://127.0.0.1:2380"
    flags = [*SECURE, *PAIR, f"--{own}-cert-allowed-{kind}=a", "--peer-cert-file=/c", "--peer-key-file=/k"]
    flags += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    flags += [f"--initial-cluster=default={peer}"]
    assert not [line for line in build(*flags, *asks).warnings if "allowed" in line]
    (told,) = [line for line in build(*flags).warnings if "allowed" in line]
    assert told.startswith(f"--{own}-cert-allowed-{kind} refuses every {own}: without --")


def test_a_file_names_what_the_flags_name(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("""
listen-client-urls: https://127.0.0.1:2379
advertise-client-urls: https://127.0.0.1:2379
client-transport-security: {cert-file: /c, key-file: /k, client-cert-auth: true, trusted-ca-file: /ca,
allowed-cn: [x, y]} """)
    assert build(f"--config-file={file}").tls == Tls("/c", "/k", True, "/ca", allowed_cns=("x", "y"))


def test_without_an_https_url_there_is_no_tls_and_a_warning_says_so() -> None:
    found = build(*PAIR, "--client-cert-auth")
    assert found.tls is None
    assert found.warnings == (
        "scheme is HTTP while key and cert files are present; ignoring key and cert "
        "files: http://localhost:2379",
        "scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for this "
        "URL: http://localhost:2379",
    )


@pytest.mark.parametrize("own", ["", "peer-"])
def test_over_http_settings_of_tls_end_no_start(own: str) -> None:
    """etcd looks at them with a certificate alone. It says nothing of authorities that nobody asks."""
    whose = own or "client-"
    build(f"--{own}client-cert-file=/c")
    build(f"--{whose}cert-allowed-cn=a", f"--{whose}cert-allowed-hostname=b")
    url = f"http://localhost:{2380 if own else 2379}"
    (told,) = build(f"--{own}trusted-ca-file=/ca").warnings
    assert told == f"scheme is HTTP while --{own}trusted-ca-file is given; ignoring it for this URL: {url}"


def test_http_alone_may_speak_tls() -> None:
    found = build(*PAIR, "--listen-client-http-urls=https://127.0.0.1:2377,http://127.0.0.1:2376")
    assert (found.tls, found.warnings[0]) == (
        Tls("/c", "/k"),
        "scheme is HTTP while key and cert files are present; ignoring key and cert files: "
        "http://localhost:2379",
    )


def test_metrics_alone_may_speak_tls() -> None:
    assert build(*PAIR, "--listen-metrics-urls=https://127.0.0.1:2400").tls == Tls("/c", "/k")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            SECURE,
            "TLS key/cert (--cert-file, --key-file) must be provided for client url "
            "https://127.0.0.1:2379 with HTTPS scheme",
        ),
        (
            ("--listen-client-http-urls=https://127.0.0.1:2377",),
            "TLS key/cert (--cert-file, --key-file) must be provided for client url "
            "https://127.0.0.1:2377 with HTTPS scheme",
        ),
        (
            ("--listen-client-http-urls=http://localhost:2377,https://localhost:2379", *PAIR),
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url "
            "https://localhost:2379",
        ),
        ((*SECURE, "--cert-file=/c"), "KeyFile and CertFile must both be present[key: , cert: /c]"),
        (
            ("--listen-metrics-urls=https://127.0.0.1:1",),
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        ((*SECURE, *PAIR, "--cipher-suites=TLS_X"), 'unexpected TLS cipher suite "TLS_X"'),
        (
            (*SECURE, *PAIR, "--cipher-suites=TLS_RSA_WITH_RC4_128_SHA"),
            "none of the TLS cipher suites TLS_RSA_WITH_RC4_128_SHA is available",
        ),
        (
            (*SECURE, *PAIR, "--tls-min-version=TLS1.3", "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"),
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            (*SECURE, *PAIR, "--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"),
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            (*SECURE, *PAIR, "--client-cert-allowed-cn=a", "--client-cert-allowed-hostname=b"),
            'AllowedCN and AllowedHostname are mutually exclusive (cn="a", hostname="b")',
        ),
        (
            (*SECURE, *PAIR, "--client-cert-file=/c"),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: /c]",
        ),
        (("--initial-advertise-peer-urls=https://127.0.0.1:2380",), "some peer URLs differ"),
        (("--initial-cluster=default=https://127.0.0.1:2380",), "some peer URLs differ"),
    ],
)
def test_what_cannot_be_is_told_as_etcd_tells_it(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        build(*args)
    assert message in str(told.value)


def test_files_that_cannot_be_used_are_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"^open /nosuch: no such file or directory$"):
        check_files(Tls("/nosuch", "/k"))


def test_a_certificate_of_a_hosts_own_is_made_once(tmp_path: Path) -> None:
    asked = build(
        "--auto-tls",
        f"--data-dir={tmp_path}/d",
        "--listen-client-urls=https://127.0.0.1:2379,https://localhost:2379,https://[::1]:2379,https://h\xf6st:1",
        "--advertise-client-urls=https://127.0.0.1:2379",
    )
    first = auto_tls.with_certificate(asked)
    assert first.tls is not None
    check_files(first.tls)
    folder = tmp_path / "d" / "fixtures" / "client"
    assert (first.tls.cert_file, first.tls.key_file) == (f"{folder}/cert.pem", f"{folder}/key.pem")
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    made = (folder / "cert.pem").read_bytes()
    assert auto_tls.with_certificate(asked).tls == first.tls
    assert (folder / "cert.pem").read_bytes() == made
    certificate = x509.load_pem_x509_certificate(made)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["127.0.0.1", "localhost", "::1", "xn--hst-sna"]
    assert 364 <= (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 366


def test_a_certificate_that_was_given_goes_before_a_made_one() -> None:
    found = build(*SECURE, *PAIR, "--auto-tls")
    assert (found.tls, found.warnings) == (Tls("/c", "/k"), ("ignoring client auto TLS since certs given",))


@pytest.mark.parametrize("years", [8000, 1 << 62])
def test_a_certificate_ends_before_dates_do(tmp_path: Path, years: int) -> None:
    asked = build(*SECURE, "--auto-tls", f"--self-signed-cert-validity={years}", f"--data-dir={tmp_path}")
    made = auto_tls.with_certificate(asked).tls
    assert made is not None
    certificate = x509.load_pem_x509_certificate(Path(made.cert_file).read_bytes())
    assert certificate.not_valid_after_utc.year == 9999


def test_a_certificate_of_no_years_is_refused(tmp_path: Path) -> None:
    asked = build(*SECURE, "--auto-tls", "--self-signed-cert-validity=0", f"--data-dir={tmp_path}")
    with pytest.raises(ConfigError, match="selfSignedCertValidity is invalid,it should be greater than 0"):
        auto_tls.with_certificate(asked)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A handshake in memory. SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server, server_hostname=name),
            server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].version() is not None


@pytest.mark.parametrize("authorities", ["", "--trusted-ca-file=/of-clients"])
def test_a_hosts_console_trusts_the_certificate_that_the_host_made(tmp_path: Path, authorities: str) -> None:
    url = "https://127.0.0.1:2379"
    asked = build(
        "--console", "--auto-tls", f"--data-dir={tmp_path}/d", f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}", *filter(None, [authorities]))
    made = auto_tls.with_certificate(asked)
    (spec,) = console_specs(made)
    given = dict(flag.partition("=")[::2] for flag in spec.argv(0) if flag.startswith("--"))
    assert made.tls is not None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.tls.cert_file, made.tls.key_file)
    shaken(server, trusting(given.get("--cacert", "")), "127.0.0.1")


def test_a_hosts_console_trusts_the_authorities_of_clients_beside_a_given_certificate() -> None:
    (spec,) = console_specs(build("--console", *SECURE, *PAIR, "--trusted-ca-file=/ca"))
    assert "--cacert=/ca" in spec.argv(0)


@pytest.mark.parametrize("asks", [[], ["--client-cert-auth"]])
def test_a_hosts_console_shows_a_certificate_where_the_host_asks_for_one(
    tmp_path: Path, asks: list[str]
) -> None:
    """Authorities of clients alone are enough for that, as in etcd: the console reached no host."""
    authority = Authority(tmp_path)
    own = authority.issue("host", "127.0.0.1")
    made = build("--console", *SECURE, f"--cert-file={own.cert}", f"--key-file={own.key}",
                 f"--trusted-ca-file={authority.file}", *asks)  # fmt: skip
    (spec,) = console_specs(made)
    given = dict(flag.partition("=")[::2] for flag in spec.argv(0) if flag.startswith("--"))
    assert made.tls is not None
    client = trusting(given["--cacert"])
    if given.get("--cert"):
        client.load_cert_chain(given["--cert"], given["--key"])
    shaken(make_context(made.tls), client, "127.0.0.1")


@pytest.mark.parametrize("named", [False, True])
def test_a_hosts_console_believes_it_though_no_flag_names_its_authority(tmp_path: Path, named: bool) -> None:
    """Of an operator's authority the machine's do not know; those of clients may be others."""
    own, of_clients = Authority(tmp_path).issue("host", "127.0.0.1"), Authority(tmp_path, "of-clients")
    flags = [f"--trusted-ca-file={of_clients.file}"] if named else []
    made = build("--console", *SECURE, f"--cert-file={own.cert}", f"--key-file={own.key}", *flags)
    (spec,) = console_specs(made)
    given = dict(flag.partition("=")[::2] for flag in spec.argv(0) if flag.startswith("--"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own.cert, own.key)
    shaken(server, trusting(given.get("--cacert", "")), "127.0.0.1")


def test_a_hosts_console_goes_by_the_machines_authorities_where_they_signed_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know the other hosts' certificates, too."""
    authority, of_clients = Authority(tmp_path), Authority(tmp_path, "of-clients")
    own = authority.issue("host", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for flags in ([], [f"--trusted-ca-file={of_clients.file}"]):
        made = build("--console", *SECURE, f"--cert-file={own.cert}", f"--key-file={own.key}", *flags)
        (spec,) = console_specs(made)
        assert not [flag for flag in spec.argv(0) if flag.startswith("--cacert")]
