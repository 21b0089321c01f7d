"""``kv``, ``txn``, ``watch``, ``lease``, and ``concurrency`` (locks, elections)."""
