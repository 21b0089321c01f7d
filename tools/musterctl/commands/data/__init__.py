"""Whole stores: ``snapshots``, ``copying`` (mirrors, imports), and what puts load on one (``check``,
``datascale``)."""
