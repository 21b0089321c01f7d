"""What clients may do at this replica: ``guard`` (users and roles as it applied them), ``admission`` (the way
of a request to its judge)."""
