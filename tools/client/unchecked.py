"""``--insecure-skip-tls-verify``: to trust whatever certificate a server shows.

gRPC's library checks every server. So the certificate is fetched first, by a connection of our own that
checks nothing, and then is the only one to be trusted, by the name that it names. A certificate that has
ended is refused nevertheless, and so is one that the server changes while a command runs.
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
    """What a server shows; None if it shows nothing, or nothing that can be read."""
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
