"""A name server of a test: for the resolver of this process, or for the processes of a network namespace."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

# SRV records by names that begin with "_", addresses by others; where a name has "broken" in it the server
# fails
Zone = Mapping[str, Sequence[str]]


@contextlib.contextmanager
def serving(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        with answering(server, zone):
            yield resolver.port


@contextlib.contextmanager
def answering(server: socket.socket, zone: Zone) -> Iterator[list[str]]:
    """Answer what comes at this socket. The names that were asked for, in order."""
    asked: list[str] = []
    thread = threading.Thread(target=_answer, args=(server, zone, asked))
    thread.start()
    try:
        yield asked
    finally:
        with contextlib.suppress(OSError):  # it has no peer, and ends the wait all the same
            server.shutdown(socket.SHUT_RD)
        thread.join()


def _answer(server: socket.socket, zone: Zone, asked: list[str]) -> None:
    while True:
        data, client = server.recvfrom(65_536)
        if not data:
            return
        query = dns.message.from_wire(data)
        name = str(query.question[0].name)
        asked.append(name)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if (records := zone.get(name)) is not None:
            kind = "SRV" if name.startswith("_") else "A"
            if query.question[0].rdtype == dns.rdatatype.from_text(kind):
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
        else:
            answer.set_rcode(dns.rcode.SERVFAIL if "broken" in name else dns.rcode.NXDOMAIN)
        with contextlib.suppress(OSError):
            server.sendto(answer.to_wire(), client)
