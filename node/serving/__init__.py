"""What this replica answers from its applied state.

Read in this order: ``serve`` (which part answers which question), ``reads``, ``ranges``, ``maintenance``,
``confirm`` (what only a confirmed sequencer answers), ``streams`` (long answers), ``txns`` (long work of
transactions), ``watch``, ``leases``, ``v2`` with ``v2_ends``, ``backups``; ``auth`` brings a request to its
judge.
"""
