"""One host. Read ``identity``, ``serve`` (from settings to processes), ``supervisor``, ``children``,
``control``, ``rundir``, ``ports``, ``pinning``, ``nodestate``, ``logs``, ``notify``."""
