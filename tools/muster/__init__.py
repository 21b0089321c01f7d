"""``muster``: the server's command line and the supervisor of a host's processes.

Read in this order: ``config`` (``flags``, the one table; ``parse``, values and their precedence), ``host``
(``identity``, who this host is; ``supervisor``, its processes), ``processes`` and ``machine`` (what runs in
each), ``local`` (several hosts on one machine), ``proxy_mode``, ``cli`` (the commands).
"""
