"""How a run reads: ``text`` for terminals, ``svg`` for pages (``bench.compare.html``)."""
