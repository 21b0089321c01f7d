"""What a client's port serves: connections, and paths that are not gRPC's.

Read in this order: ``server`` (one port for HTTP/1.1 and HTTP/2), ``limits``, ``filter`` (before every
handler), ``endpoints`` (health, metrics, version), ``shard_endpoints``.
"""
