"""What services and handlers share: ``context`` (router, settings, counters), ``stepped`` (long checks)."""
