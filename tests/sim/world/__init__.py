"""The simulated machines, disks, networks and faults, and the cluster on them."""
