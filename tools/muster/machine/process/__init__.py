"""What each process of a host does alike.

Read ``setup`` (CPU, garbage collection), ``handed`` (its settings), ``status`` (lines to the supervisor),
``crash`` (how it ends), ``memory`` (how much there is), ``trimming`` (what is free goes back),
``scheduling``,
``turns``, ``descriptors``.
"""
