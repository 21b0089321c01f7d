"""What the processes of a host have in common, whether they are nodes, fronts or both in one.

``status`` (lines to the supervisor), ``logs`` (lines to the operator), ``setup`` (CPU, garbage collection), ``trimming``
(what is free goes back), ``memory`` (how much there is). It knows ``cluster.logline`` and ``cluster.faults`` and nothing
else of muster.
"""
