"""What a node agrees on with the others: ``agreed`` (the layout, and who is who), ``publishing`` (its host's
attributes), ``succession`` (who leads next)."""
