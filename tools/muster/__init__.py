"""``muster``: the server's command line and the supervisor of a host's processes.

Read in this order: ``flags`` (the one table), ``parse`` (values and their precedence), ``config`` (checked
settings), ``bootstrap`` (who this host is), ``supervisor`` (its processes), ``local`` (several hosts on one
machine), ``cli`` (the commands).
"""
