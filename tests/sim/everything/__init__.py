"""Everything at once."""
