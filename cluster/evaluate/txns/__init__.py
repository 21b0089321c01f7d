"""Transactions: ``transactions`` (any), ``plain_txn`` (the fast path), ``draft`` (very long ones, in
steps), and
``range_compares``."""
