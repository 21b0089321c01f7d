"""What each process of a host does alike.

Read ``setup``, ``handed`` (its settings), ``status`` (lines to the supervisor), ``crash`` (how it ends),
``memory``, ``trimming``, ``scheduling``, ``turns``, ``descriptors``.
"""
