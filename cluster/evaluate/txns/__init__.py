"""Transactions: ``transactions`` (any), ``plain_txn`` (the fast path), ``draft`` (very long ones, in steps),
``range_compares``."""
