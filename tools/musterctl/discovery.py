"""``--discovery-srv``: endpoints out of a domain's SRV records, as etcd's clients look them up.

``_etcd-client-ssl._tcp.DOMAIN`` names endpoints by https, ``_etcd-client._tcp.DOMAIN`` those in clear;
``--discovery-srv-name N`` asks for ``_etcd-client-ssl-N`` and ``_etcd-client-N``. One of the two is enough.
"""

from __future__ import annotations

from tools.client.channels import say
from tools.musterctl.command import Exit
from tools.srv import LookupFailed, lookup

_SCHEMES = (("https", "-ssl"), ("http", ""))


def endpoints_of(domain: str, name: str, *, insecure: bool) -> list[str]:
    """The endpoints of a domain, those by https first. Without ``insecure`` those in clear are left out. Exit
    1."""
    found: list[str] = []
    failures: list[str] = []
    for scheme, ssl in _SCHEMES:
        service = f"_etcd-client{ssl}{f'-{name}' if name else ''}._tcp.{domain}"
        try:
            found += [f"{scheme}://{host}:{port}" for host, port in lookup(service)]
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

