"""Leases: new IDs (``ids``), their keys (``keys``), all of them (``listing``), and ``checkpoints``."""
