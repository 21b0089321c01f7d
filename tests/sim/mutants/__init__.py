"""Rules taken out one at a time: the checks must notice each."""
