"""Schedules that are made for one rule."""
