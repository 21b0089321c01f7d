"""The programs ``muster`` (server, supervisor, local clusters), ``musterctl`` (the client) and the start of
``muster-bench``. They may use every other folder; nothing imports them."""
