"""Connections to a cluster, for client programs: ``musterctl``, and hosts that find each other.

Read ``channels``, ``diagnose`` (why no endpoint works), ``unchecked`` (unverified certificates), ``exits``.
"""
