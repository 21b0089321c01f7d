"""Which action would make the cluster fit its load: facts in, at most one action out (growth.md, section 8).

Read ``bounds`` (every limit), ``sample`` (which keys the load is on), ``facts`` (what nodes tell),
``cutting`` (which span to move), ``wishes`` (what the facts ask for), ``limits`` (why not now), ``foreseen``
(whether it helped), ``policy`` (all of it, in time).
"""
