"""Metrics of a front and of its host's nodes: ``exposition`` (/metrics) first, then ``node_metrics``,
``shard_facts``, ``siblings``."""
