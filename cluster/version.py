"""The versions that muster shows to clients, in one place."""

ETCD_VERSION = "3.5.21"  # the etcd whose behaviour clients may expect
CLUSTER_VERSION = "3.5.0"
MUSTER_VERSION = "0.1.0"
MADE = 1  # the term before the first leader's, in which a cluster is made: a fresh etcd shows 2
