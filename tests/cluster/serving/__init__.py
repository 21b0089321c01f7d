"""Hosts, shards and proxies that serve."""
