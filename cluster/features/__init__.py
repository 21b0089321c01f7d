"""Replicated features beside keys: each in a module of its own.

``lessor`` knows which leases there are and when each is due; ``autocompact`` when to compact by itself.
"""
