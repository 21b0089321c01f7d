"""Who belongs to the store: IDs, and the order in which groups change when a host joins or leaves.

Read ``identity`` (IDs as etcd computes them), then ``host_changes`` (H12, I21).
"""
