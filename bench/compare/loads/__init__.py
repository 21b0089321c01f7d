"""Loads of a kind of their own, each by itself: ``agree``, ``cuts``, ``disturb``, ``size``, ``upkeep``."""
