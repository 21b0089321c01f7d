"""Users, roles and permissions, as etcd has them: one feature of the replicated state.

``state`` holds them, folded from rows; ``permissions`` merges key ranges; ``changes`` evaluates changes and
``reads`` shows them; ``principal`` names the client, ``judge`` says what it may; ``tokens`` are the simple
ones.
"""
