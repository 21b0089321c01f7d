"""Lease's methods: ``lease`` registers them, ``keepalive`` is its stream."""
