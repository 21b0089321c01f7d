"""What shards cost, told before one buys machines.

Read in this order: ``roles`` (which process does what), ``fit`` (prices by least squares), ``model`` (what
a load takes by its prices), ``demand`` (a plan), ``simulate`` (queues), ``ordering`` (the coordinator alone),
``prices`` (measures them), ``scale`` (1 to 64 shards), ``show`` and ``cli``.
"""
