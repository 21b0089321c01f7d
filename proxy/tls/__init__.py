"""TLS on the ports of clients. Read ``settings`` of ``cluster.settings.Tls`` first, then:

- ``contexts``: the files of certificates and what is made of them, anew when a file changes;
- ``certified``: what a client's certificate says, and why one is refused that its CA vouches for;
- ``layer``: TLS between a connection's socket and what speaks HTTP on it.
"""

from proxy.tls.contexts import Credentials
from proxy.tls.layer import HINTS, TLS_IN_CLEAR, TlsLayer

__all__ = ["HINTS", "TLS_IN_CLEAR", "Credentials", "TlsLayer"]
