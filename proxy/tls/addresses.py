"""Whether a client comes from an address that its certificate is for: ``checkCertSAN`` of etcd's transport
package, asked of peers and of clients of ``--listen-metrics-urls``.

A certificate without alternative names is for everywhere. With addresses, the client's must be among them,
unless a name of it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Container, Sequence
from typing import Protocol

from proxy.tls.certified import Certificate


class Names(Protocol):
    """The machine's. A name server that is down lets one wait for ten seconds and more."""

    def of(self, address: str) -> Awaitable[Sequence[str]]:
        """All names of an address. OSError."""

    def addresses(self, name: str) -> Awaitable[Container[str]]:
        """OSError. ValueError: it cannot be a name."""


def by_number(certificate: Certificate, address: str) -> str | None:
    """Why a client from there is refused; "" if it is not; None: its names decide."""
    if not certificate.addresses and not certificate.dns_names:
        return ""
    if address in certificate.addresses:
        return ""
    if certificate.dns_names:
        return None
    return f"x509: certificate is valid for {', '.join(certificate.addresses)}, not {address}"


async def by_name(certificate: Certificate, address: str, resolver: Names) -> str:
    """The same by names, which are looked up. A star counts only for the address's own names."""
    wild = tuple(name[1:] for name in certificate.dns_names if name.startswith("*."))
    names = [name for name in certificate.dns_names if not name.startswith("*.")]
    failed = ""
    own: list[str] = []
    try:
        own = [name.removesuffix(".") for name in await resolver.of(address)]
    except OSError as error:
        failed = f" (lookup {address}: {error.strerror or error})"
    except RuntimeError as error:  # no thread can be started
        failed = f" (lookup {address}: {error})"
    if any(name in names or name.endswith(wild) for name in own):
        return ""
    for name in names:
        try:
            found = await resolver.addresses(name)
        except OSError:
            failed = f" (lookup {name}: no such host)"
            continue
        except RuntimeError as error:
            failed = f" (lookup {name}: {error})"
            continue
        except ValueError:  # no name at all
            continue
        if address in found:
            return ""
    listed = " ".join(f'"{name}"' for name in certificate.dns_names)
    return f'tls: "{address}" does not match any of DNSNames [{listed}]{failed}'
