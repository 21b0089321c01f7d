"""Connections to a cluster, for programs that are its clients: ``musterctl``, and hosts that find each other.

Read in this order: ``channels`` (which endpoint takes the next request), ``diagnose`` (why none does),
``unchecked`` (certificates that nobody checks), ``exits``.
"""
