"""Faults of single shards, while the others go on."""
