"""Spans of keys that move between shards."""
