"""A running muster for tests of programs that use it, with any client.

Read in this order: ``cluster`` and ``store`` (what tests use), ``plugin`` (pytest's fixtures), ``keeper``
(the process that runs the hosts), ``links`` (what cuts them off), ``cleaning``, ``ports``. The first three
need the standard library and pytest only, so a test's own packages may have the names of muster's.
"""

from muster.testing.cluster import Cluster, ClusterError
from muster.testing.store import Store

__all__ = ["Cluster", "ClusterError", "Store"]
