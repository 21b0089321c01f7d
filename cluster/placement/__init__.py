"""Where keys live: a table with versions, folded from the order, over a rule that never changes.

Read ``base`` (the rule: a hash), ``table`` (the owner of each key, now and at a revision), ``changes`` (the
items that change it), ``owned`` (what a shard shows), ``current`` (the newest table, which everything asks),
``births`` (the next steps of shards that form or retire).
"""

from cluster.placement.current import Placement as Placement
from cluster.placement.owned import Owned as Owned
from cluster.placement.table import Table as Table
