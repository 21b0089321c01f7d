"""Inputs that nobody would send on purpose, each a function of a seed: ``messages`` (gRPC), ``bytes_of``
(connections), ``peers`` (the peer port)."""
