"""Hosts that are added, moved, replaced and found: who belongs to a cluster, and at which addresses."""
