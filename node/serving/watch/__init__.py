"""Watch events for the fronts of this host: ``watches``, and by ``range_index`` which ranges have a key."""
