"""``--discovery-srv``: endpoints out of a domain's SRV records, as etcd's clients look them up.

``_etcd-client-ssl._tcp.DOMAIN`` names endpoints by https, ``_etcd-client._tcp.DOMAIN`` those in clear;
``--discovery-srv-name N`` asks for ``_etcd-client-ssl-N`` and ``_etcd-client-N``. One of the two is enough.
"""

from __future__ import annotations

import dns.exception
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from tools.musterctl.channels import say
from tools.musterctl.command import Exit

_SCHEMES = (("https", "-ssl"), ("http", ""))
_LIMIT_S = 5.0  # for all servers to answer


class LookupFailed(Exception):
    """A name has no SRV records, or nobody says; in the words of Go's resolver."""


def endpoints_of(domain: str, name: str, *, insecure: bool) -> list[str]:
    """The endpoints of a domain, those by https first. Without ``insecure`` those in clear are left out. Exit 1."""
    found: list[str] = []
    failures: list[str] = []
    for scheme, ssl in _SCHEMES:
        service = f"_etcd-client{ssl}{f'-{name}' if name else ''}._tcp.{domain}"
        try:
            found += [f"{scheme}://{record.target}:{record.port}" for record in _records(service)]
        except LookupFailed as e:
            failures.append(str(e))
    if len(failures) == len(_SCHEMES):
        raise Exit(1, f"dns lookup errors: {' and '.join(failures)}")
    if insecure:
        return found
    for endpoint in found:
        if endpoint.startswith("http:"):
            say(f'ignoring discovered insecure endpoint "{endpoint}"')
    return [endpoint for endpoint in found if endpoint.startswith("https:")]


def _records(service: str) -> list[SRV]:
    resolver = dns.resolver.get_default_resolver()
    server = f"{resolver.nameservers[0]}:{resolver.port}" if resolver.nameservers else "[::1]:53"
    try:
        answer = dns.resolver.resolve(service, "SRV", lifetime=_LIMIT_S, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        raise LookupFailed(f"lookup {service} on {server}: no such host") from None
    except dns.exception.Timeout:
        raise LookupFailed(f"lookup {service} on {server}: i/o timeout") from None
    except dns.exception.DNSException:
        raise LookupFailed(f"lookup {service} on {server}: server misbehaving") from None
    return sorted(answer, key=lambda record: (record.priority, -record.weight))
