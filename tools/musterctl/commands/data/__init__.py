"""Whole stores: ``snapshots``, ``copying`` (mirrors, imports), and load on one (``check``, ``datascale``)."""
