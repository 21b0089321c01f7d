"""How a run reads: ``text`` for terminals, ``html`` with ``svg`` for browsers.
"""
