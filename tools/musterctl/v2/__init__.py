"""The v2 API: etcdctl's older commands over HTTP, as ``ETCDCTL_API=2 etcdctl`` has them.

Read ``start``, ``table``, ``line`` (matching), ``help``, ``client`` (endpoints, failover), ``exchange`` (one
request), ``keys``, ``output``, then ``commands``.
"""
