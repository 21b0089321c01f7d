"""Links between holders of the cluster's peer key: ``keys``, ``mechanism``."""
