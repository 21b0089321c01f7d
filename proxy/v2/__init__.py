"""etcd's API of version 2 over HTTP. Read ``form`` (Go's reading of a query and a form), ``request`` (what a
request for a key asks for), ``keys`` (its answer), the folders ``plain`` (short cuts), ``waiting`` and
``users``, then ``members`` and ``stats``. ``endpoints`` registers them all."""
