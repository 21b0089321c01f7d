"""A name server of a test, which the resolver of this process asks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

# SRV records by name; where a name has "broken" in it the server fails
Zone = Mapping[str, Sequence[str]]


@contextlib.contextmanager
def serving(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_answer, args=(server, zone))
        thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        try:
            yield resolver.port
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", server.getsockname())
            thread.join()


def _answer(server: socket.socket, zone: Zone) -> None:
    while True:
        data, client = server.recvfrom(65_536)
        if not data:
            return
        query = dns.message.from_wire(data)
        name = query.question[0].name
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if (records := zone.get(str(name))) is not None:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *records))
        else:
            answer.set_rcode(dns.rcode.SERVFAIL if "broken" in str(name) else dns.rcode.NXDOMAIN)
        with contextlib.suppress(OSError):
            server.sendto(answer.to_wire(), client)
