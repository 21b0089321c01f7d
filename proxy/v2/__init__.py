"""etcd's API of version 2 over HTTP, as the front serves it.

Read ``form`` (Go's reading of a query and a form), ``request`` (what a request for a key asks for),
``keys`` (its answer), ``feed`` and ``waits`` (those who wait for a change), ``members`` and ``stats``.
"""
