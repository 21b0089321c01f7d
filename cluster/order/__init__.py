"""The one order of the whole store.

Read in this order: ``log`` (cuts and multis: how many logs become one order), ``sound`` (what of a record can
be applied), ``prepare``, ``locks`` and ``overlaps`` (transactions over several shards), then ``sequencing``
(shard 0's leader), ``leading`` (any other shard's), ``following`` (how a shard keeps up with the order),
``salvage``.
"""
