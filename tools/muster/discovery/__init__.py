"""The first hosts of a cluster out of a directory of the v2 API (``--discovery URL``), by etcd's rules.

``service`` asks for what lies there, ``directory`` is what a host does with it: it registers itself and waits
for the others. ``host.identity.by_url`` makes an initial cluster of it.
"""
