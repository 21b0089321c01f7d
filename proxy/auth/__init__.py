"""Identifying clients: ``shown`` turns a token or a certificate's name into the principal of a request;
``tokens`` and ``jwt`` are the kinds of tokens; ``passwords``. Nodes judge permissions
(``cluster.features.auth.judge``)."""
