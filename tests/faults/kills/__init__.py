"""Processes that are killed or stopped, and networks that are cut."""
