"""``--discovery-srv``: endpoints from a domain's SRV records, as etcd's clients find them.

``_etcd-client-ssl._tcp.DOMAIN`` names endpoints by https, ``_etcd-client._tcp.DOMAIN`` clear ones;
``--discovery-srv-name N`` asks for ``_etcd-client-ssl-N`` and ``_etcd-client-N``. One of the two is enough.
"""

from __future__ import annotations

from tools.client.channels import say
from tools.musterctl.command import Exit
from tools.srv import LookupFailed, records

_SCHEMES = (("https", "-ssl"), ("http", ""))


def endpoints_of(domain: str, name: str, *, insecure: bool) -> list[str]:
    """The endpoints of a domain, https first; clear ones only with ``insecure``. Exit 1."""
    found: list[str] = []
    failures: list[str] = []
    for scheme, ssl in _SCHEMES:
        service = f"_etcd-client{ssl}{f'-{name}' if name else ''}._tcp.{domain}"
        try:
            found += [f"{scheme}://{record.host}:{record.port}" for record in records(service)]
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

