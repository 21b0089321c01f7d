"""``--insecure-skip-tls-verify``: trust any certificate of a server.

gRPC's library checks every server. So a connection without checks fetches the certificate, which then is the
only trusted one, by its own name. An expired one is refused, and one that changes during a command.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from tools.client.diagnose import Target, connect, context_of, host_port


@dataclass(slots=True, frozen=True)
class Shown:
    """A server's certificate in PEM, and a name that it is valid for."""

    pem: bytes
    name: str


def shown_by(target: Target, timeout_s: float) -> Shown | None:
    """None if the server shows nothing readable."""
    if target.tls is None:
        return None
    with contextlib.suppress(OSError, ValueError), contextlib.closing(connect(target, timeout_s)) as plain:
        host = host_port(target.address)[0]
        with context_of(target.tls).wrap_socket(plain, server_hostname=host) as secure:
            der = secure.getpeercert(binary_form=True)
        if der is not None:
            name = _name_in(x509.load_der_x509_certificate(der))
            return Shown(ssl.DER_cert_to_PEM_cert(der).encode(), name)
    return None


def _name_in(certificate: x509.Certificate) -> str:
    with contextlib.suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName) or names.get_values_for_type(x509.IPAddress)
        if found:
            return str(found[0]).replace("*", "any")
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else ""
