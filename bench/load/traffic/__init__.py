"""What clients send: ``workloads`` (unary requests); ``actors``, ``stepwise``, ``recipes`` (several in turn);
``streams``, ``watchers`` and ``holding`` (what stays open); ``kubernetes`` and ``v2``.
"""
