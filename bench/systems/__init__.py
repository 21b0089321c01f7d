"""Servers of the bench: ``systems`` starts etcd and muster, ``servers`` measures their processes."""
