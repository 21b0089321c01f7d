"""Users of version 2: ``credentials`` (of a request), ``bodies`` (of ``/v2/auth``) and ``auth`` (its
methods). Nodes judge (``cluster.features.v2``)."""
