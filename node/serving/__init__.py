"""What this replica answers from its applied state.

Read in this order: ``serve`` (which part answers which question), ``reads``, ``ranges``, ``maintenance``,
``confirm`` (what only a confirmed sequencer answers), ``past`` and ``streams`` (long answers), ``looking``,
``watches`` with ``range_index``, ``leases``, ``v2``, ``backups``; ``admission`` brings a request to its
judge, which uses ``guard``.
"""
