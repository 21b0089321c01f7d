"""Keys and what hangs on them: ``kv``, ``txn``, ``watch``, ``lease``, and ``concurrency`` (locks,
elections)."""
