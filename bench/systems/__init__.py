"""Servers of the bench: ``systems`` starts etcd and muster, ``servers`` tells what their processes cost."""
