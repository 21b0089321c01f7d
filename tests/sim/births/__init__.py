"""Shards that are born and retired: ``order_births`` has the hosts' supervisors and the operator."""
