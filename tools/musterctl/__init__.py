"""musterctl: etcdctl's commands, flags, output and exit codes for a muster (or etcd) cluster.

Read in this order: ``cli`` (what happens to a command line), ``global_flags``, ``commands`` (the table of
commands and flags), ``command`` (how a line is matched to it), ``client`` (requests, failover, errors;
connections are ``tools.client``'s), a module per group of commands in ``commands``, and the output in
``printing``: ``printer`` chooses; ``gotext`` and ``layout`` hold the formats of the Go library that
etcdctl's output shows. ``v2`` speaks the v2 API.

Only the standard library is imported until a command needs the network: ``musterctl version`` must
start as fast as a shell expects.
"""

API_VERSION = "3.5"  # decides every text in which etcdctl 3.5 and 3.6 differ; 3.5 is what is written here
