"""muster-bench: load for anything that speaks etcd v3, and a comparison with etcd itself.

Read in this order: ``client`` (an asynchronous gRPC client, usable as a library), ``systems`` (servers to
start), ``load`` (one run), ``report``, ``compare``, ``plan``. It imports ``cluster`` alone, and no server's
code.
"""
