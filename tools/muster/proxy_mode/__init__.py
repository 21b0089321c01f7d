"""``muster --proxy on|readonly``: a host that is no member, as etcd's proxy of version 2 is started.

``start`` decides what a host runs as, ``kind`` is what its data directory says to that, ``run`` has fronts
run alone, and ``found`` knows whom they serve. ``fronts`` runs them, for ``muster proxy``, too.
"""
