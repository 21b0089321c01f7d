"""Disks that lose, fill up or hold very much, and snapshots for hosts that were away."""
