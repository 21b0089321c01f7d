"""Connections: ``endpoints``, ``connections``, ``retries`` (what is tried again), ``calls``, ``keeper``."""
