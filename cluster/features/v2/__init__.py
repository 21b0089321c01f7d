"""etcd's v2 tree: files and directories with an index of their own, as one feature of the replicated state.

``requests`` are what a front asks; ``tree`` holds the nodes, folded from rows, and ``counters`` what was done
to it; ``changes`` evaluates changes;
``events`` and ``history`` are for waits; ``shown`` is the JSON that clients read, ``refusals`` etcd's errors;
``users`` judges and shows users and roles, ``user_changes`` changes them.

Paths are bytes, absolute and clean, with etcd's namespace before them: keys live below ``/1``, users and
roles of v2 below ``/2``. No client writes a namespace itself.
"""
