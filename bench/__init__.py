"""muster-bench: load for anything that speaks etcd v3, and a comparison with etcd itself.

Read in this order: ``client`` (a lean asynchronous gRPC client, usable as a library), ``spec`` (what one
run is), ``workloads`` and ``streams`` (what is sent), ``loops`` (when it is sent), ``worker`` (one client
process), ``run`` (the parent of those processes), ``report``, ``compare``. Client side only: of the
server's code nothing but the messages (``cluster.pb``, ``cluster.wire.protobuf``) is imported.
"""
