"""Long work beside requests: ``slicer`` runs it a slice at a time, ``yielding`` tells whether others are
about."""
