"""What a front tells of itself and of its host's nodes.

Read ``exposition`` (/metrics) first, then ``node_metrics``, ``shard_facts``, ``siblings``.
"""
