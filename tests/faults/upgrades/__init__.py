"""Hosts that are restarted one after the other, under one version or two."""
