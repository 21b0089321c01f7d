"""muster and etcd on this machine, in turns.

Read in this order: ``matrix`` (the rows), ``comparison``, ``cli``, ``report`` and ``html``; then ``loads``,
which are of kinds of their own.
"""
