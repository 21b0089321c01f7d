"""Users, roles and permissions. ``model`` is what both versions of the API have in common, ``version3`` asks
by gRPC; ``rights`` tells what a user may do. Version 2 lies with its tree, in ``store.v2``.
"""
