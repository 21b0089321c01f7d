"""Attacks on real hosts, and what a client beside them sees.

Read ``beside.py`` first: it says what is measured and against which bounds. ``raw.py`` is a client that may
do what no library allows; ``bystander.py`` the well-behaved one, in a process of its own; ``rows.py`` what
the store holds.
"""
