"""What the processes of a host have in common, whether they are nodes, fronts or both in one.

``status`` (lines to the supervisor), ``logs`` (lines to the operator), ``setup`` (CPU, garbage collection). It knows
``cluster.logline`` and ``cluster.faults`` and nothing else of muster.
"""
