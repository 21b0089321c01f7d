"""How hosts are installed and started, what they log, and what they say where they cannot start."""
