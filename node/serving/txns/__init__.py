"""Long work of transactions, in slices: ``past`` (their answers), ``looking`` (ahead of those that write)."""
