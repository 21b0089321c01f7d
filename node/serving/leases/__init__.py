"""Leases: IDs for those that name none (``ids``), their keys (``keys``), all of them (``listing``), and what
is left of long ones (``checkpoints``)."""
