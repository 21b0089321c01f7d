"""etcd's v2 tree: files and directories with an index of their own, as one feature of the replicated state.

``requests`` are what a front asks; ``tree`` holds the nodes, folded from rows; ``changes`` evaluates what
changes them; ``events`` and ``history`` are what has happened, for those who wait; ``shown`` is the JSON that
clients read, ``refusals`` are etcd's errors.

``users`` says who may do what, and shows it; ``user_changes`` changes users, roles and the switch.

Paths are bytes, absolute and clean, with etcd's namespace before them: keys live below ``/1``, users and
roles of v2 below ``/2``. Nobody writes a namespace itself.
"""
