"""The machine that nodes and fronts run on, and what the processes of a host have in common.

Read ``real`` (all that ``cluster.machine`` asks for), ``disks`` (what a node asks for besides), ``zmtp``
(links), ``syncer`` (the log's syncs). Beside it: ``status`` (lines to the supervisor), ``logs`` (lines to the
operator), ``crash`` (how a process ends), ``setup`` (CPU, garbage collection), ``trimming`` (what is free
goes back), ``memory`` (how much there is).
"""
