"""Hosts that advise how they should grow, and grow by themselves."""
