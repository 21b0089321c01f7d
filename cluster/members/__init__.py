"""The members of a cluster: IDs, the table of hosts, and the order in which groups change when a host joins
or leaves.

Read ``identity`` (IDs as etcd computes them), ``origin`` (what a data directory began with), ``table``
(folded from the order), ``checks`` (which wishes are granted), ``goals`` (what is due when the groups are not
what the table says), then ``host_changes`` (in which group it is due: H12, I21).
"""
