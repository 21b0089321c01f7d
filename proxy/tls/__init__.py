"""TLS on the ports of clients. Read ``settings`` of ``cluster.settings.Tls`` first, then:

- ``contexts``: the files of certificates and what is made of them, made again when a file changes;
- ``certified``: what a client's certificate says, and why a host refuses one that its CA signed;
- ``records``: what comes, and what may bring no data;
- ``layer``: TLS between a connection's socket and what speaks HTTP on it.
"""

from proxy.tls.contexts import Credentials
from proxy.tls.layer import HINTS, TLS_IN_CLEAR, TlsLayer

__all__ = ["HINTS", "TLS_IN_CLEAR", "Credentials", "TlsLayer"]
