"""musterctl with the v2 API: etcdctl's older commands over HTTP, as ``ETCDCTL_API=2 etcdctl`` has them.

Read in this order: ``start`` (what happens to a command line), ``table`` (commands and options), ``line``
(how a line is matched to them), ``help``, ``client`` (endpoints, failover, errors), ``exchange`` (one
request), ``keys`` (what /v2/keys answers), ``output``, then ``commands``.
"""
