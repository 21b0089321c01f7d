"""Seeds under every kind of trouble."""
