"""The leader of a shard other than 0: it evaluates at once, and learns revisions later.

Read ``shard_leader`` first, then ``attempts`` (locks for transactions over several shards), ``pending`` (its
speculative state), ``shard_batch`` and ``verdicts``.
"""
