"""What is read of clients' certificates, and who is refused."""

from __future__ import annotations

import ssl

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from proxy.tls.certified import Certificate, read, refusal, revoked_serials
from tests.authority import Authority, Pair

NONE: frozenset[int] = frozenset()


def of(pair: Pair) -> Certificate:
    return read(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_a_certificate_says_its_name_its_number_and_where_it_is_valid(authority: Authority) -> None:
    pair = authority.issue("alice", "a.example", "*.b.example", "10.0.0.1", "::1")
    found = of(pair)
    assert (found.common_name, found.serial) == ("alice", pair.serial)
    assert (found.dns_names, found.addresses) == (("a.example", "*.b.example"), ("10.0.0.1", "::1"))


def test_one_of_no_known_version_cannot_be_read(authority: Authority) -> None:
    """A client may show any certificates behind its own: such a one ended the process once."""
    der = ssl.PEM_cert_to_DER_cert(authority.issue("odd").cert.read_text())
    version = b"\xa0\x03\x02\x01"
    odd = der.replace(version + b"\x02", version + b"\x05", 1)
    assert odd != der
    with pytest.raises(ValueError, match="version"):
        read(odd)
    with pytest.raises(ValueError, match=r"."):
        read(der[:-1])


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("a.example", True),
        ("A.Example", True),
        ("a.example.", True),
        ("x.b.example", True),
        ("10.0.0.1", True),
        ("[::1]", True),
        ("0:0:0:0:0:0:0:1", True),
        ("b.example", False),
        ("y.x.b.example", False),
        ("10.0.0.2", False),
        ("alice", False),
        ("xa.example", False),
        ("", False),
        (".b.example", False),
        ("*.b.example", True),
    ],
)
def test_a_star_stands_for_one_label_and_the_common_name_for_no_host(host: str, fits: bool) -> None:
    certificate = Certificate("alice", 1, ("a.example", "*.b.example"), ("10.0.0.1", "::1"))
    assert certificate.is_of(host) is fits


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_list_of_the_revoked_is_read_in_either_form(authority: Authority, encoding: Encoding) -> None:
    assert revoked_serials(authority.revoke(7, 8, encoding=encoding).read_bytes()) == {7, 8}


def test_what_is_no_such_list_is_an_error(authority: Authority) -> None:
    for text in (b"", b"no list", authority.file.read_bytes()):
        with pytest.raises(ValueError):
            revoked_serials(text)


def test_a_revoked_certificate_is_refused_wherever_it_stands_in_the_chain() -> None:
    leaf, between = Certificate("leaf", 0xAB, (), ()), Certificate("between", 0xCD, (), ())
    assert refusal([leaf, between], NONE, (), (), 0.0) == ""
    assert (
        refusal([leaf, between], frozenset({0xCD}), (), (), 0.0) == "transport: certificate serial cd revoked"
    )
    assert (
        refusal([leaf, between], frozenset({0xAB}), (), (), 0.0) == "transport: certificate serial ab revoked"
    )


def test_only_names_that_are_allowed_pass() -> None:
    alice = Certificate("alice", 1, ("a.example",), ())
    for names, hosts, passes in (
        (("alice",), (), True),
        (("bob", "alice"), (), True),
        (("bob",), (), False),
        ((), ("a.example",), True),
        ((), ("b.example", "a.example"), True),
        ((), ("b.example",), False),
        ((), ("alice",), False),
        (("bob",), ("a.example",), True),
    ):
        assert (refusal([alice], NONE, names, hosts, 0.0) == "") is passes, (names, hosts)
    assert refusal([], NONE, ("alice",), (), 0.0) == "client certificate authentication failed"


def test_a_certificate_that_has_ended_is_refused() -> None:
    alice = Certificate("alice", 1, (), (), ends=100.0)
    assert refusal([alice], NONE, (), (), 99.0) == ""
    assert (
        refusal([alice], NONE, (), (), 101.0) == "tls: failed to verify certificate: certificate has expired"
    )
