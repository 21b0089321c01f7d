"""One generated sequence of requests, two servers, the same answers.

``steps`` makes the requests (seeded), ``edges`` those that chance seldom makes, ``endpoints`` sends them
(gRPC, or ``cluster.evaluate.requests`` over a shard in memory), ``compare`` says what must be equal: every
field but cluster_id, member_id, raft_term, the IDs of leases that a server chose and the time that leases
have left.

Where muster answers otherwise than the etcd 3.5.1 these tests run, on purpose; the steps keep clear of it:

* a sort option outside its enum is refused (etcd from a later 3.5 on; 3.5.1 ignores it);
* a watch from a negative revision is refused at once (from 3.5.24 on; 3.5.1 cancels it as compacted);
* the first compaction may name revision 0, and a second one too: it removes nothing. Replicas would have to
  keep for ever that it was asked for. etcd refuses the second, and its HashKV tells 0 then;
* a transaction that deletes to the end of the key space (``range_end`` a zero byte) and then puts one of
  those keys with ignore_value or ignore_lease is answered KeyNotFound: etcd's check for duplicate keys does
  not see it, and its process ends. Without the ignore flags such a transaction works, in both.
* rows of equal rank come in key order; etcd's order of them is accidental;
* a ``range_end`` that is sent but empty (as the npm client etcd3 does) means one key. etcd's ranges,
  transactions that only read and their compares take it for the end of all keys. They ask for a
  permission on the one key alone. Its deletes and its writing transactions take it for one key;
* a known field in a wrong wire type is passed over like an unknown one; etcd answers INTERNAL.

And where no step goes, on purpose as well:

* a put in a nested transaction counts against the quota and is refused under NOSPACE; etcd's estimate
  forgets it. The quota is that of the leader's host; in etcd that of the member that is asked;
* a put or a transaction that is wrong is told so under NOSPACE too, with one shard also one that its user may
  not make; an etcd whose database is full says NOSPACE first;
* a write that is too large is told so whatever its token is; etcd looks at the token first;
* LeaseLeases is linearizable, so it needs a majority; an etcd's member lists what it knows by itself;
* a progress request on a stream without watches has no answer, as in etcd 3.6; 3.5.1 gives one. The ID of a
  watch that a compaction ended is free at once; etcd keeps it until its client cancels it;
* one watch response may hold several revisions of live events, and its header is not below the last of them;
  etcd sends a response for each;
* HashKV and Hash are functions of muster's own, and compare muster with muster;
* ``raftTerm`` and ``raftIndex`` of Status and headers are shard 0's; ``dbSize`` is the sum over the host's
  shards. ``X-Raft-Term`` of version 2 is one more than ``raft_term`` of version 3;
* a new tree of version 2 begins at index 4 with any number of hosts, in etcd at 2n+2; starts and changes of
  members take no index;
* the JSON gateway reads a number or an enum's name out of a string as JSON unescapes it, so ``"\\u0031"`` is
  1; etcd takes what stands between the quotes as it is, and refuses that;
* an alarm or a permission whose type has no name is refused; etcd keeps it, or its process ends;
* a role has one permission for a range: granting it again changes its type. etcd looks at the first
  permission with that key alone, so it may add the range once more, and keep the stronger type;
* MemberAdd wants a connected majority with the new host, as in the newest 3.5 and 3.6; 3.5.1 wants all;
* a simple token is signed: its form is muster's own, it counts after a restart, and two logins within a
  second may get the same one;
* a simple token's last use counts at one front, in etcd at one member: of a host with several fronts, a new
  connection may reach another one;
* an inverted range (``range_end`` before ``key``) holds no key, yet it asks a user for a permission. Which
  grants etcd finds for it hangs on the order they were made in; muster finds those at the range's start;
* transactions more than 48 deep in each other are refused; etcd takes as many levels as operations;
* RangeStream with another sort target and no order gives rows in key order. etcd 3.7 sorts each chunk by that
  target and goes on behind its last row, so it loses rows;
* a watch ends when its user may no longer read its range, and a watch without a user when auth is enabled
  (P5 of docs/design/invariants.md); etcd asks once, when the watch is created;
* while users are enabled, a watch is made once the sequencer has judged it, also a watch of past events; an
  etcd's member judges it by itself, by users that may be old;
* a web token of a later auth revision than the cluster's counts, also for reads, which etcd refuses: a
  replica that is behind would refuse a client that has just logged in. So tokens of later days count again
  once an older backup is restored;
* a field of a oneof that stands twice in a RequestOp is one message, as protobuf says; in Go the last counts;
* ``--auth-token=jwt,ttl=0`` means the default of five minutes; in etcd no such token counts;
* a peer URL whose port is beyond 65535 or missing, or whose brackets hold no IPv6 address, is refused;
* MemberUpdate refuses the URLs that MemberAdd refuses. etcd takes any, and its other members end by such;
* HTTP/1.0 connections that ask to stay do so after large answers too; a malformed ``Host`` is taken, CONNECT
  refused; ``--cors`` takes origins without a port;
* heads of requests above ``--max-header-bytes`` are refused; etcd takes 1 MiB by HTTP/1.1, but a request line
  of some 4 KiB, and 16 MiB by gRPC;
* ``/v2/stats/store`` counts what is refused as a failure, a heartbeat later at followers; etcd counts refused
  deletes on a condition or of the root, and updates of a directory's value, as successes;
* ``--client-cert-allowed-cn`` and ``-hostname`` refuse everybody where no certificate is asked for, and
  ``--auto-tls`` keeps ``--client-cert-auth`` and ``--trusted-ca-file``; etcd passes over these;
* ``--cipher-suites`` without the suites that Go's HTTP/2 wants is served; etcd ends at its start;
* a TLS session is resumed with TLS 1.2 alone, at the front that made it, until a file of certificates
  changes. etcd gives tickets, by which a client resumes though its signer is trusted no more;
* ``--memory-mlock`` locks all memory of a host's processes, in etcd the map of the database alone;
* ``etcd_mvcc_{put,delete,range,txn}_total`` count clients' requests, in etcd operations inside too;
* a server that is stopped in order exits with 0; etcd ends itself by the signal.
"""
