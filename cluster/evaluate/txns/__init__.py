"""Transactions: ``transactions`` (any) with ``compares`` and ``pending``, ``plain_txn`` (the fast path),
``draft`` (very long ones, in steps), ``range_compares``."""
