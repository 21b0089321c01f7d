"""The web console of ``--console``: a client like any other, which has to believe the host that serves it."""

from __future__ import annotations

import ssl
from contextlib import suppress

from cluster.settings import Tls
from tools.muster.config.settings import ServerConfig

_FLIGHTS = 2  # of each end


def flags_of(config: ServerConfig) -> list[str]:
    """Its command line."""
    endpoints = ",".join(url.text for url in config.advertise_client)
    flags = [f"--endpoints={endpoints}", f"--listen={config.values['console-listen']}"]
    authorities = config.values["trusted-ca-file"]
    if "https://" in endpoints and config.tls is not None and (trusted := _trusted(config.tls, authorities)):
        flags.append(f"--cacert={trusted}")
    if config.values["client-cert-auth"] or authorities:  # each asks clients for one
        flags += [f"--cert={config.values['cert-file']}", f"--key={config.values['key-file']}"]
    return flags


def _trusted(tls: Tls, of_clients: str) -> str:
    """Who has signed this host's certificate: the authorities of clients, or the machine's (""). Where it is
    neither, as with an authority that no flag names, the file of the certificate itself."""
    for authorities in (of_clients, ""):
        if _signed(tls, authorities):
            return authorities
    return tls.cert_file


def _signed(tls: Tls, authorities: str) -> bool:
    """Whether a client that goes by these authorities takes this host's certificate; also where that cannot
    be read, as others tell."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # another name is no question of authorities
    try:
        server.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except OSError:
        return True
    try:
        if authorities:
            client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            client.load_verify_locations(authorities)
        else:
            client.load_default_certs()
        _shake(client, server)
    except OSError:
        return False
    return True


def _shake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """In memory, until the client has judged the server's certificate. SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(_FLIGHTS):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
