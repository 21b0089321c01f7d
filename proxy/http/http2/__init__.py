"""HTTP/2 (RFC 9113) for a server, pure: bytes in, callbacks on streams and bytes out.

Nothing here touches a socket or a clock. Read in this order: ``frames`` (what is on the wire), ``blocks``
(HPACK and the cache of whole header blocks), ``stream`` (one exchange, its windows and queue), ``outbound``
(the sending half of a connection), ``guard`` (limits against abuse), ``ends`` (of streams and connections),
``connection`` (the state machine).
"""

from proxy.http.http2.blocks import HeaderBlock, encode_block
from proxy.http.http2.connection import Connection
from proxy.http.http2.frames import PREFACE, ErrorCode
from proxy.http.http2.guard import Limits
from proxy.http.http2.stream import Stream

__all__ = ["PREFACE", "Connection", "ErrorCode", "HeaderBlock", "Limits", "Stream", "encode_block"]
