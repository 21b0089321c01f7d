"""A host's identity, settled before any of its processes runs.

``bootstrap`` makes or reads its IDs; ``by_srv`` and ``by_url`` find the first hosts; ``joining`` asks a
running cluster; ``restoring`` begins from a backup; ``forcing`` makes a cluster of this host alone. ``modes``
tells what others may open.
"""
