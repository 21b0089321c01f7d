"""One host. Read ``identity``, ``serve`` (it runs a host), ``specs`` (its processes, and their settings),
``supervising``, ``control``, ``rundir``, ``ports``, ``pinning``, ``nodestate``, ``logs``; ``salvaging`` and
``defragment`` work on a stopped host's files."""
