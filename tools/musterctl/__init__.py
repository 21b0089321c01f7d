"""musterctl: etcdctl's commands, flags, output and exit codes for a muster or etcd cluster.

Read ``cli``, ``global_flags``, ``commands`` (``table``), ``command`` (matching a line), ``client``
(requests, over the library's connections), ``printing``, ``v2`` (the v2 API).

Only the standard library is imported until a command needs the network: ``musterctl version`` must be quick.
"""

API_VERSION = "3.5"  # where etcdctl 3.5 and 3.6 differ, 3.5's text is written
