"""How a shard other than 0 follows the order: pure decisions, which a node carries out.

Read ``feed_queue`` (records that have come and wait for their entries), ``placing`` (which entries they put
in order, and where), ``source`` (whose feed is taken), ``reporting`` (what the sequencer is told),
``questions`` (what it is asked about locks), ``stuck`` (when a leader gives way because nothing of it is put
in order, H13). Times are the caller's, in the unit that the name says.
"""
