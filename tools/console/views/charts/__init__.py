"""Charts of the last hour: ``charts`` is the view, ``hot`` the prefixes that change most."""
