"""muster and etcd on this machine, in turns.

Read in this order: ``matrix`` (the rows), ``comparison``, ``cli``, ``report`` and ``html``; the others are
loads of a kind of their own (``agree``, ``cuts``, ``disturb``, ``size``, ``upkeep``).
"""
