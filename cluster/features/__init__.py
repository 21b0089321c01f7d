"""Replicated features beside keys: each in a module of its own.

``cluster.evaluate.feature_table`` registers them (docs/design/features.md), ``rows`` is what most log and
keep. ``lessor`` knows which leases there are and when each is due; ``autocompact`` when to compact by itself;
``auth`` who may do what; ``downgrade`` which version is gone back to.
"""
