"""The programs: ``muster`` (server, supervisor, local clusters) and ``musterctl`` (the client).

They may use every other folder; nothing imports them.
"""
