"""The programs: ``muster`` (server, supervisor, local clusters), ``musterctl`` (the client), and the start of
``muster-bench`` (``muster_bench``; all else of it is in ``bench``). ``client``: connections to a cluster.

They may use every other folder; nothing imports them.
"""
