"""Leases: IDs for those that name none (``ids``), their keys (``keys``), and all of them (``listing``)."""
