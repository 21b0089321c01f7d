"""What clients send: ``workloads`` (unary requests), ``actors`` and ``recipes`` (several in turn),
``streams``,
``watchers``.
"""
