"""What a node agrees on with the others: ``agreed`` (layout and identities), ``publishing`` (its host's
attributes), ``succession`` (the next leader)."""
