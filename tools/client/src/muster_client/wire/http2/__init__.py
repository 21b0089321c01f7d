"""gRPC over HTTP/2, by bytes: a call by grpcio's asyncio takes several times the CPU of all else here.

Read ``frames`` (RFC 9113), ``hpack`` (RFC 7541), ``answers`` (what headers say), ``sending`` and
``connection`` (one connection), ``call`` (streams), ``dialing`` (how a connection begins).
"""
