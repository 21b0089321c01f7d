"""Long work beside requests: ``slicer`` runs it in slices, ``yielding`` tells whether requests come."""
