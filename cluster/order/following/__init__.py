"""How a shard other than 0 follows the order: pure decisions, which a node carries out. Read ``feed_queue``,
``placing``, ``source`` (which node's feed is taken), ``reporting``, ``questions``, ``stuck`` (H13)."""
