"""Replicated features beside keys: each in a module of its own, registered in
``cluster.evaluate.feature_table`` (docs/design/README.md).

``rows`` is what most log and keep. ``lessor`` knows which leases exist and when each is due, ``autocompact``
when to compact by itself, ``auth`` the rights, ``downgrade`` the version of a downgrade, ``v2`` the v2 tree.
"""
