"""``muster``: the server's command line and the supervisor of a host's processes.

Read ``config``, ``host``, ``processes``, ``machine``, ``local`` (several hosts on one machine),
``proxy_mode``, ``cli``.
"""
