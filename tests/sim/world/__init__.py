"""The simulated machines, networks and faults, and the cluster on them."""
