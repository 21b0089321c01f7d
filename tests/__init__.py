"""Tests, by what they start."""
