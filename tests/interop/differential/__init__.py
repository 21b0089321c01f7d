"""One generated sequence of requests, two servers, the same answers.

``steps`` makes the requests (seeded), ``endpoints`` sends them (gRPC, or ``cluster.evaluate`` over a shard
in memory), ``compare`` says what must be equal: every field but cluster_id, member_id, raft_term, the IDs
of leases that a server chose and the time that leases have left.
"""
