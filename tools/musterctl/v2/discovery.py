"""Endpoints from DNS: the SRV records of etcd's clients."""

from __future__ import annotations


class NotFound(Exception):
    """No record; the message says what was asked."""


def endpoints(domain: str) -> list[str]:
    """What ``_etcd-client-ssl._tcp`` (https) and ``_etcd-client._tcp`` (http) name. NotFound."""
    import dns.exception
    import dns.resolver

    found: list[str] = []
    reasons = []
    for service, scheme in (("_etcd-client-ssl", "https"), ("_etcd-client", "http")):
        name = f"{service}._tcp.{domain}"
        try:
            records = dns.resolver.resolve(name, "SRV", search=False)
        except dns.exception.DNSException as error:
            missing = isinstance(error, (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer))
            reasons.append(f"lookup {name}: {'no such host' if missing else str(error)}")
            continue
        ranked = sorted(records, key=lambda record: (record.priority, -record.weight))
        found += [f"{scheme}://{record.target.to_text()}:{record.port}" for record in ranked]
    if len(reasons) == 2:
        raise NotFound(f"dns lookup errors: {reasons[0]} and {reasons[1]}")
    return found
