"""Who belongs to the cluster, as one node lives with it.

Read ``roster`` first (peers, links and fronts follow the table), then ``group`` (what the leader of one
Raft group does when a change of hosts is due in it), then ``changes`` (the leader of shard 0: grants
wishes, walks over all groups). The rules are pure and lie in ``cluster.members``.
"""
