"""One generated sequence of requests, two servers, the same answers.

``steps`` makes the requests (seeded), ``edges`` those that chance seldom makes, ``endpoints`` sends them
(gRPC, or ``cluster.evaluate.requests`` over a shard in memory), ``compare`` says what must be equal: every
field but cluster_id, member_id, raft_term, the IDs of leases that a server chose and the time that leases
have left.

Where muster answers otherwise than the etcd 3.5.1 these tests run, on purpose; the steps keep clear of it:

* a sort option outside its enum is refused (etcd from a later 3.5 on; 3.5.1 ignores it);
* a watch from a negative revision is refused at once (from 3.5.24 on; 3.5.1 cancels it as compacted);
* the first compaction may name revision 0, and a second one too (etcd refuses the second);
* a transaction that deletes to the end of the key space (``range_end`` a zero byte) and then puts one of
  those keys with ignore_value or ignore_lease is answered KeyNotFound: etcd's check for duplicate keys does
  not see it, and its process ends. Without the ignore flags such a transaction works, in both.
* rows of equal rank come in key order; etcd's order of them is accidental.
"""
