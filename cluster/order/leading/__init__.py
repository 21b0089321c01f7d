"""The leader of a shard other than 0. Read ``shard_leader``, ``attempts`` (locks for transactions over
several shards), ``pending`` (its speculative state), ``shard_batch``, ``verdicts``."""
