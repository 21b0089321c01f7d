"""What keeps a store within its quota and its disks.

Read in this order: ``alarms``, ``quota`` with ``costs``, ``disks`` (what the room on them means) with
``shortage`` (how a node finds it, and tells others), ``giving_back``.
"""
