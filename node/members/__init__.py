"""The members of the cluster, as one node knows them.

Read ``roster`` first (peers, links and fronts follow the table), then ``group`` (what a Raft group's
leader does when a change of hosts is due), then ``changes`` (the leader of shard 0: grants requests, and
carries them through all groups). The rules are pure and lie in ``cluster.members``.
"""
