"""muster and etcd on this machine, in turns.

Read in this order: ``systems`` and ``servers`` (what is started), ``matrix`` (the rows), ``comparison``, ``cli``, ``report``; the others
are loads of a kind of their own (``agree``, ``cuts``, ``disturb``, ``holding``, ``size``, ``upkeep``).
"""
