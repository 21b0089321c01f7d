"""What this replica answers from its applied state.

Read in this order: ``serve`` (every question), ``reads``, ``confirm`` (what only a confirmed sequencer
answers), ``past`` and ``streams`` (long answers), ``looking``, ``watches`` with ``range_index``, ``leases``,
``backups``; ``guard`` is the way of a request to who judges it.
"""
