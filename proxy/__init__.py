"""The front: speaks to clients, forwards to the shards' leaders, fans watches out. It keeps no state that
matters.

Read in this order: ``http`` (bytes in, events out), ``grpc`` (calls), ``listener`` (a port), ``routing`` (the
way to the nodes and back), ``shared`` and ``services`` (what each method does), ``gateway`` (JSON), ``watch``
(subscriptions and their clients), ``main`` (the process).
"""
