"""What keeps a store within its quota and its disks.

Read in this order: ``alarms``, ``quota`` with ``costs`` and ``sizes``, ``disks`` (levels of shortage) with
``shortage`` (how a node finds its level, and tells others), ``rewriting`` (one shard of a host at a time)
with ``giving_back`` and ``defragments``, ``keeping`` (what a shard without a majority needs of the order, so
that the order log may go).
"""
