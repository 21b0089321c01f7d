"""Moves of keys between shards. Pure; nothing here runs before a MOVE is in the order.

Read ``generations`` (when an attempt may go by a table), ``switch`` (the one transaction that changes an
owner), ``mover`` (the sequencer's machine for a move), ``hold`` (what waits where shard 0 is the source),
``copier`` (the target's copy of what moves).
"""
