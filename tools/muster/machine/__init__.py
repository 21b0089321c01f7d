"""The machine that nodes and fronts run on, and what the processes of a host have in common.

Read ``real`` (all that ``cluster.machine`` asks for), ``disk`` (what a node asks for besides), ``zmtp``
(links).
Beside it: ``process`` (what each process of a host does alike), ``logs`` with ``logfile`` (lines to the
operator).
"""
