"""Connections to a cluster, for client programs: ``musterctl``, and hosts that find each other.

The library for users, ``muster_client``, is a distribution of its own in ``src``.

Read ``channels``, ``files`` (of TLS), ``diagnose`` (why no endpoint works), ``exits``.
"""
