"""One host. Read ``identity``, ``serve`` (from settings to processes), ``supervising``, ``control``,
``rundir``, ``ports``, ``pinning``, ``nodestate``, ``logs``; ``salvaging`` and ``defragment`` work
on a stopped host's files."""
