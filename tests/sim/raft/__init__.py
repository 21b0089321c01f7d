"""Raft alone: its simulator, checks and mutants."""
