"""What a node agrees on with the others: ``agreed`` (layout and identities), ``publishing`` (its host's
attributes), ``growing`` (what its program speaks), ``placed`` (where keys live), ``succession`` (the next
leader)."""
