"""A host's processes, from their start to their end. Read ``supervisor``, ``children``, ``born`` (shards that
come and go while the host runs), ``notify``."""
