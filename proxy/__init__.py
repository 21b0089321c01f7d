"""The front: speaks to clients, forwards to the shards' leaders, fans watches out. It keeps no state that matters.

Read in this order: ``http2`` (bytes in, events out), ``grpc`` and ``server`` (calls), ``links``, ``routes`` and ``router``
(the way to the nodes and back), ``services`` (what each method does), ``gateway`` (JSON), ``watch``
(subscriptions and their clients), ``main`` (the process).
"""
