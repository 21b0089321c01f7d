"""Keys that move between shards: copies that do not count yet, and what has left (``staged``); how both are
written, read and removed (``staging``)."""
