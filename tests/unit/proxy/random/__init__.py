"""A front's services under random events: begin with ``world.py``, then ``run.py``.

``requests.py`` is what clients ask, ``calls.py`` how their calls go on, ``nodes.py`` and ``answers.py`` what
nodes do, ``tables.py`` how keys move, ``threads.py`` when hashes are ready. ``rules.py`` says what must hold
once all is over.
"""
