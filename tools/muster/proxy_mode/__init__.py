"""``muster --proxy on|readonly``: a host that is no member, as etcd's v2 proxy.

``start`` decides what a host runs as, ``kind`` reads its data directory, ``run`` runs fronts (``fronts``,
also for ``muster proxy``), ``found`` knows the members.
"""
