"""What processes say to each other, as bytes: ``frames`` (kinds between replicas, versions), ``messages``
(between fronts and nodes), ``link`` (the asking end), ``events`` (of watches), ``protobuf`` (by hand)."""
