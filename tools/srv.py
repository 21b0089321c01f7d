"""SRV records, with failures in the words of Go's resolver."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dns.resolver import Resolver

_LIMIT_S = 5.0  # for all servers to answer
_DEFAULT_SERVERS = ("127.0.0.1", "::1")  # Go's, for a machine whose configuration names none


class LookupFailed(Exception):
    """There are no such records, or no answer."""


class Record(NamedTuple):
    host: str  # with its final dot
    port: int
    priority: int
    weight: int


def records(service: str) -> list[Record]:
    """The records of a name, by priority and weight. The name may be below a search domain of this machine.
    LookupFailed."""
    import dns.exception  # 60 ms to load, for few
    import dns.resolver

    try:
        resolver = dns.resolver.get_default_resolver()
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = list(_DEFAULT_SERVERS)
    server = f"{resolver.nameservers[0]}:{resolver.port}"
    failed = ""
    for name in _names(service, resolver):
        try:
            answer = resolver.resolve(name, "SRV", lifetime=_LIMIT_S, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            failed = "no such host"
        except dns.exception.Timeout:
            failed = "i/o timeout"
        except dns.exception.DNSException:
            failed = "server misbehaving"
        else:
            found = sorted(answer, key=lambda r: (r.priority, -r.weight, r.target, r.port))
            return [Record(str(r.target), r.port, r.priority, r.weight) for r in found]
    raise LookupFailed(f"lookup {service} on {server}: {failed}")


def _names(service: str, resolver: Resolver) -> list[str]:
    """What a name may mean, in the order of Go's resolver."""
    if service.endswith("."):
        return [service]
    domains = resolver.search or [resolver.domain]
    below = [f"{service}.{domain}" for domain in domains if len(domain) > 1]
    dots = 1 if resolver.ndots is None else resolver.ndots
    return [f"{service}.", *below] if service.count(".") >= dots else [*below, f"{service}."]
