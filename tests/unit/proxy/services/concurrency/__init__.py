"""Locks and elections over fake nodes."""
