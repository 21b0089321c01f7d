"""Other people's clients and programs, on muster."""
