"""How new a read is: ``read_index`` asks the sequencer once a tick, ``recent`` never goes back at one
host, whose fronts tell each other by ``shared``, and ``applied`` waits for what takes no revision."""
