"""How nodes differ.

``role`` (what a role is asked for), ``lone`` (the role of a store's only shard), ``made`` (which role a node
takes). ``node.replica.shards`` has the roles of several shards.
"""
