"""Long work of transactions, in slices: ``past`` (their answers), ``looking`` (ahead of those that write),
``uncounted`` (writes that wait until keys are counted)."""
