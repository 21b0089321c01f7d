"""Certificates, authorities and lists of the revoked that are replaced while a server runs, seen by who dials
next."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from pathlib import Path

import pytest

from cluster.settings import Tls
from proxy.grpc.registry import Registry
from proxy.tls import Credentials
from proxy.tls.contexts import CIPHERS, make_context
from tests.authority import Authority, Pair, replace
from tests.unit.grpc.harness import Running, serving


class Dialled:
    """What a client of TLS meets."""

    def __init__(
        self, port: int, ca: Authority | None, pair: Pair | None = None, **limits: ssl.TLSVersion
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if ca is not None:
            context.load_verify_locations(ca.file)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        for name, value in limits.items():
            setattr(context, name, value)
        context.set_alpn_protocols(["h2"])
        self.serial = self.error = self.version = ""
        with socket.create_connection(("127.0.0.1", port), 20) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                    self.serial = (secure.getpeercert() or {}).get("serialNumber", "")
                    self.version = str(secure.version())
                    secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                    if not secure.recv(1):
                        self.error = "ended"
            except OSError as error:
                self.error = str(getattr(error, "reason", None) or type(error).__name__)

    @property
    def served(self) -> bool:
        return not self.error


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings(pair: Pair, **others: object) -> Tls:
    return Tls(str(pair.cert), str(pair.key), **others)  # type: ignore[arg-type]


def refusals(running: Running) -> list[str]:
    """From now on, why handshakes fail."""
    told: list[str] = []
    running.server.handshake_failed = lambda address, reason: told.append(reason)
    return told


def test_a_new_certificate_is_shown_to_who_dials_next(authority: Authority) -> None:
    first = authority.issue("server", "127.0.0.1")
    with serving(Registry(), tls=Credentials(settings(first))) as running:
        before = Dialled(running.port, authority)
        second = authority.issue("server", "127.0.0.1")
        after = Dialled(running.port, authority)
    assert before.served
    assert after.served
    assert int(after.serial, 16) == second.serial != int(before.serial, 16)


def test_while_half_a_pair_is_replaced_the_old_one_counts(authority: Authority) -> None:
    pair = authority.issue("server", "127.0.0.1")
    told: list[str] = []
    other = authority.issue("other", "127.0.0.1")
    with serving(Registry(), tls=Credentials(settings(pair), told.append)) as running:
        old = Dialled(running.port, authority)
        replace(pair.key, other.key.read_bytes())
        between = Dialled(running.port, authority)
        assert between.served
        assert between.serial == old.serial
        assert told == [
            f"certificate {pair.cert} and key {pair.key}: tls: private key does not match public key"
        ]
        replace(pair.cert, other.cert.read_bytes())
        assert int(Dialled(running.port, authority).serial, 16) == other.serial
        pair.key.unlink()
        assert Dialled(running.port, authority).served
    assert told[1:] == [f"open {pair.key}: no such file or directory"]


def test_a_file_that_goes_between_two_looks_at_it_changes_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("server", "127.0.0.1")
    told: list[str] = []
    held = Credentials(settings(pair), told.append)
    before = held.context()
    pair.key.unlink()
    monkeypatch.setattr("proxy.tls.contexts.read", lambda path: b"")
    assert held.context() is before
    assert len(told) == 1


def test_what_is_written_twice_within_a_time_stamp_is_seen(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, other = authority.issue("server", "127.0.0.1"), authority.issue("other", "127.0.0.1")
    credentials = Credentials(settings(pair))
    made = credentials.made
    monkeypatch.setattr("proxy.tls.contexts._stamp", lambda path: (1, 2, 3, 4, time.time_ns() - 10**8))
    credentials.context()
    same = (1, 2, 3, 4, time.time_ns())
    monkeypatch.setattr("proxy.tls.contexts._stamp", lambda path: same)
    credentials.context()
    replace(pair.key, other.key.read_bytes())
    replace(pair.cert, other.cert.read_bytes())
    now = time.monotonic()
    monkeypatch.setattr("proxy.tls.contexts.time.monotonic", lambda: now + 5)
    before = credentials.context()
    assert credentials.made > made + 2
    monkeypatch.setattr("proxy.tls.contexts.time.time", lambda: same[-1] / 1e9 + 60)
    monkeypatch.setattr("proxy.tls.contexts.time.monotonic", lambda: now + 10)
    settled = credentials.context()
    assert settled is not before
    assert credentials.context() is settled


@pytest.mark.parametrize(("ahead_s", "once"), [((3600, 3600), True), ((3600, 0), False)])
def test_files_from_the_future_are_read_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, ahead_s: tuple[int, int], once: bool
) -> None:
    """From a machine whose clock is ahead, or of before this one's was put back: no session was resumed. One
    that was just written is read again, whatever lies beside it."""
    pair = authority.issue("server", "127.0.0.1")
    for path, by_s in zip((pair.cert, pair.key), ahead_s, strict=True):
        os.utime(path, (0, time.time() + by_s))
    credentials = Credentials(settings(pair))
    first, now = credentials.context(), time.monotonic()
    monkeypatch.setattr("proxy.tls.contexts.time.monotonic", lambda: now + 5)
    assert (credentials.context() is first) == once


def test_a_client_needs_a_certificate_of_the_authority_where_one_is_asked_for(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    alice, mallory = authority.issue("alice", "x"), stranger.issue("mallory", "x")
    late = authority.issue("late", "x", expired=True)
    tls = Credentials(settings(authority.issue("server", "127.0.0.1"), trusted_ca_file=str(authority.file)))
    with serving(Registry(), tls=tls) as running:
        told = refusals(running)
        assert Dialled(running.port, authority, alice).served
        assert Dialled(running.port, authority).error == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert Dialled(running.port, authority, mallory).error == "TLSV1_ALERT_UNKNOWN_CA"
        assert Dialled(running.port, authority, late).error == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        assert Dialled(running.port, stranger, alice).error == "CERTIFICATE_VERIFY_FAILED"
        assert running.call(running.server.statistics)["handshakes_failed"] == 4
    assert told[0] == "tls: client didn't provide a certificate"
    assert told[1].startswith("tls: failed to verify certificate: ")
    assert told[2:] == [
        "tls: failed to verify certificate: certificate has expired",
        "remote error: tls: unknown certificate authority",
    ]


def test_an_authority_that_is_added_or_taken_out_counts_from_the_next_handshake_on(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    alice, bob = authority.issue("alice", "x"), other.issue("bob", "x")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    tls = Credentials(
        settings(authority.issue("server", "127.0.0.1"), trusted_ca_file=str(trusted), client_cert_auth=True)
    )
    with serving(Registry(), tls=tls) as running:
        assert [Dialled(running.port, authority, pair).served for pair in (alice, bob)] == [True, False]
        replace(trusted, authority.file.read_bytes() + other.file.read_bytes())
        assert [Dialled(running.port, authority, pair).served for pair in (alice, bob)] == [True, True]
        replace(trusted, other.file.read_bytes())
        assert [Dialled(running.port, authority, pair).served for pair in (alice, bob)] == [False, True]


def test_a_certificate_that_is_revoked_ends_at_the_next_handshake(authority: Authority) -> None:
    alice, bob = authority.issue("alice", "x"), authority.issue("bob", "x")
    crl = authority.revoke()
    tls = Credentials(
        settings(
            authority.issue("server", "127.0.0.1"), trusted_ca_file=str(authority.file), crl_file=str(crl)
        )
    )
    with serving(Registry(), tls=tls) as running:
        told = refusals(running)
        assert Dialled(running.port, authority, alice).served
        authority.revoke(alice.serial)
        assert [Dialled(running.port, authority, pair).served for pair in (alice, bob)] == [False, True]
        assert told == [f"transport: certificate serial {alice.serial:x} revoked"]
        crl.unlink()
        assert not Dialled(running.port, authority, alice).served, (
            "a list that is gone must not let the revoked in"
        )


def test_only_clients_with_an_allowed_name_are_served(authority: Authority) -> None:
    alice, bob = authority.issue("alice", "a.example"), authority.issue("bob", "b.example")
    server = authority.issue("server", "127.0.0.1")
    for others in ({"allowed_cns": ("alice",)}, {"allowed_hostnames": ("nobody", "a.example")}):
        tls = Credentials(
            settings(server, trusted_ca_file=str(authority.file), client_cert_auth=True, **others)
        )
        with serving(Registry(), tls=tls) as running:
            assert [Dialled(running.port, authority, pair).served for pair in (alice, bob)] == [True, False]


def test_a_session_outlives_neither_its_connection_nor_its_certificate(authority: Authority) -> None:
    alice = authority.issue("alice", "x")
    crl = authority.revoke()
    tls = Credentials(
        settings(
            authority.issue("server", "127.0.0.1"), trusted_ca_file=str(authority.file), crl_file=str(crl)
        )
    )
    with serving(Registry(), tls=tls) as running:

        def served(
            version: ssl.TLSVersion, session: ssl.SSLSession | None
        ) -> tuple[bool, bool, ssl.SSLSession | None]:
            context.maximum_version = version
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", running.port), 20) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return secure.recv(12) == b"HTTP/1.1 404", bool(secure.session_reused), secure.session
            return False, False, None

        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(alice.cert, alice.key)
        of_13 = served(ssl.TLSVersion.TLSv1_3, None)
        assert served(ssl.TLSVersion.TLSv1_3, of_13[2])[:2] == (True, False)
        of_12 = served(ssl.TLSVersion.TLSv1_2, None)
        assert of_12[:2] == (True, False)
        authority.revoke(alice.serial)
        assert not served(ssl.TLSVersion.TLSv1_2, of_12[2])[0]
        assert not served(ssl.TLSVersion.TLSv1_3, None)[0]


def test_versions_of_tls_are_bounded(authority: Authority) -> None:
    server = authority.issue("server", "127.0.0.1")
    only_12 = {"maximum_version": ssl.TLSVersion.TLSv1_2}
    for others, offered, version in (
        ({}, {}, "TLSv1.3"),
        ({}, only_12, "TLSv1.2"),
        ({"max_version": "TLS1.2"}, {}, "TLSv1.2"),
        ({"min_version": "TLS1.3"}, only_12, ""),
        ({"min_version": "TLS1.3"}, {}, "TLSv1.3"),
    ):
        with serving(Registry(), tls=Credentials(settings(server, **others))) as running:
            assert Dialled(running.port, authority, **offered).version == version, others


def test_every_cipher_that_go_names_is_known_to_openssl(authority: Authority) -> None:
    server = authority.issue("server", "127.0.0.1")
    for name, suite in CIPHERS.items():
        made = make_context(settings(server, cipher_suites=(name,)))
        assert suite in {cipher["name"] for cipher in made.get_ciphers()}


def test_without_a_word_about_ciphers_all_have_forward_secrecy_as_gos(authority: Authority) -> None:
    made = make_context(settings(authority.issue("server", "127.0.0.1")))
    usual = [cipher["name"] for cipher in made.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert usual[:2] == ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert all(suite.startswith("ECDHE-") for suite in usual)
    assert not {"ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA384"} & {*usual}


def test_what_cannot_be_used_at_the_start_is_told_with_the_file(authority: Authority, tmp_path: Path) -> None:
    server, other = authority.issue("server", "x"), authority.issue("other", "x")
    nothing = tmp_path / "nothing"
    nothing.write_text("no certificate")
    locked = tmp_path / "locked"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBvTBXBgkqhkiG9w0BBQ0wSjApBgkqhkiG9w0BBQwwHAQI\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    for tls, words in (
        (Tls(str(server.cert), "/nosuch"), "open /nosuch: no such file or directory"),
        (Tls(str(server.cert), str(other.key)), "tls: private key does not match public key"),
        (Tls(str(nothing), str(server.key)), str(nothing)),
        (Tls(str(server.cert), str(locked)), str(locked)),
        (settings(server, trusted_ca_file=str(server.key)), f"certificate authorities {server.key}: "),
        (settings(server, crl_file=str(nothing)), f"revocation list {nothing}: "),
        (settings(server, crl_file="/nosuch"), "open /nosuch: no such file or directory"),
    ):
        with pytest.raises(ValueError) as told:
            Credentials(tls)
        assert words in str(told.value)


def test_a_folder_that_is_swapped_by_a_link_is_seen(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes swaps what a secret holds."""
    for folder in ("one", "two"):
        pair = authority.issue("server", "127.0.0.1")
        (tmp_path / folder).mkdir()
        for path in (pair.cert, pair.key):
            os.replace(path, tmp_path / folder / path.name)
    data = tmp_path / "data"
    data.symlink_to("one")
    pair = Pair(data / "server.pem", data / "server-key.pem")
    with serving(Registry(), tls=Credentials(settings(pair))) as running:
        first = Dialled(running.port, authority).serial
        (tmp_path / "next").symlink_to("two")
        os.replace(tmp_path / "next", data)
        assert int(Dialled(running.port, authority).serial, 16) == pair.serial != int(first, 16)
