"""What a node agrees on with the others."""
