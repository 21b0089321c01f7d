"""SRV records, with failures in the words of Go's resolver."""

from __future__ import annotations

from typing import NamedTuple

_LIMIT_S = 5.0  # for all servers to answer


class LookupFailed(Exception):
    """There are no such records, or no answer."""


class Record(NamedTuple):
    host: str  # with its final dot
    port: int
    priority: int
    weight: int


def records(service: str) -> list[Record]:
    """The records of a name, by priority and weight. LookupFailed."""
    import dns.exception  # 60 ms to load, for few
    import dns.resolver

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
    found = sorted(answer, key=lambda record: (record.priority, -record.weight, record.target, record.port))
    return [Record(str(record.target), record.port, record.priority, record.weight) for record in found]
