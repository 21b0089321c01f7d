"""For watches that lag: ``ring`` keeps what was emitted lately, ``history`` reads what is older from the
nodes, ``gathered`` makes one answer of it."""
