"""The machine of nodes and fronts.

Read ``real`` (``cluster.machine``), ``disk`` (a node's), ``zmtp`` (links), ``process`` (common to all
processes of a host), ``logs`` with ``logfile``.
"""
