"""Maintenance's methods: ``maintenance`` registers them, long ones have modules of their own."""
