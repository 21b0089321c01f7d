"""muster-bench: load for anything that speaks etcd v3, and a comparison with etcd itself.

Read in this order: ``client`` (a lean asynchronous gRPC client, usable as a library), ``systems`` (servers
to be started), ``load`` (what one run is), ``report``, ``compare``. Client side only: of the
server's code nothing but the messages (``cluster.pb``, ``cluster.wire.protobuf``) is imported.
"""
