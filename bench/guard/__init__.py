"""The guard: what a request may cost. ``bounds`` has the figures, ``check`` measures; ``events`` and
``traced`` count what processes do."""
