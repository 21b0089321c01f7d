"""A certificate authority of a test, with the files that it hands out."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    @property
    def serial(self) -> int:
        """The certificate's number."""
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


class Authority:
    """Signs certificates, and takes them back."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *hosts: str, expired: bool = False, common_name: str | None = None) -> Pair:
        """A new certificate in files called ``name``, which are replaced as a whole, key first."""
        now = datetime.datetime.now(datetime.UTC)
        dates = {"not_before": now - 3 * _DAY, "not_after": now - _DAY} if expired else {}
        made = self._ca.issue_cert(*hosts, common_name=common_name or name, **dates)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        replace(pair.key, made.private_key_pem.bytes())
        replace(pair.cert, b"".join(pem.bytes() for pem in made.cert_chain_pems))
        return pair

    def revoke(self, *serials: int, name: str = "crl", encoding: Encoding = Encoding.PEM) -> Path:
        """A list of what is not valid any more."""
        now = datetime.datetime.now(datetime.UTC)
        ca = x509.load_pem_x509_certificate(self.file.read_bytes())
        made = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(ca.subject)
            .last_update(now)
            .next_update(now + _DAY)
        )
        for serial in serials:
            made = made.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            )
        key = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        path = self._folder / f"{name}.{'pem' if encoding is Encoding.PEM else 'der'}"
        replace(path, made.sign(key, SHA256()).public_bytes(encoding))  # type: ignore[arg-type]
        return path


def replace(path: Path, content: bytes) -> None:
    """Write a file so that nobody reads half of it."""
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(content)
    os.replace(aside, path)
