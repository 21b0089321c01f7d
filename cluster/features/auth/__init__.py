"""Users, roles and permissions, as etcd has them: one feature of the replicated state.

``state`` holds them, folded from rows; ``permissions`` merges key ranges; ``changes`` evaluates what changes
them and ``reads`` what shows them; ``principal`` says who asks, and ``judge`` whether he may. ``tokens`` are
the simple ones.
"""
