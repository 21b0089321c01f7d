"""A self-signed certificate and its key. Imported when needed: ``cryptography`` takes 8 MB."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.durable import write_whole
from tools.muster.config.parse import ConfigError

_YEAR = datetime.timedelta(days=365)
_LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # that a certificate can name


def self_signed(folder: Path, hosts: Sequence[str], years: int) -> tuple[str, str]:
    """The certificate's and the key's file in ``folder``, made if missing. ConfigError, OSError."""
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    if not (cert_file.is_file() and key_file.is_file()):
        if years < 1:
            raise ConfigError("selfSignedCertValidity is invalid,it should be greater than 0")
        key, cert = _make(hosts, years)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(key_file, key)
        write_whole(cert_file, cert, 0o644)  # last: a pair counts once both are there
    return str(cert_file.absolute()), str(key_file.absolute())


def _make(hosts: Sequence[str], years: int) -> tuple[bytes, bytes]:
    """Key and certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + years * _YEAR if years <= (_LAST - now) // _YEAR else _LAST)
        .add_extension(
            x509.SubjectAlternativeName([_name_of(host) for host in dict.fromkeys(hosts)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_encipherment=True, content_commitment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
                encipher_only=False, decipher_only=False),
            critical=True)
        .sign(key, SHA256())
    )
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        certificate.public_bytes(Encoding.PEM))


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host if host.isascii() else host.encode("idna").decode())
