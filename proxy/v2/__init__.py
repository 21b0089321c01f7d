"""etcd's API of version 2 over HTTP, as the front serves it.

Read ``form`` (Go's reading of a query and a form), ``request`` (what a request for a key asks for),
``keys`` (its answer), the folders ``plain`` (the commonest requests, in short), ``waiting`` (those who wait
for a change) and ``users`` (who asks, and ``/v2/auth``), then ``members`` and ``stats``. ``endpoints``
registers them all.
"""
