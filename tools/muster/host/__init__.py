"""One host: who it is, its processes, and what they stand on.

Read in this order: ``identity`` (who this host is), ``serve`` (from settings to processes), ``supervisor``,
``children``, ``control``, ``rundir``, ``ports``, ``pinning``, ``nodestate``, ``logs``, ``notify``.
"""
