"""What programs import of muster: ``muster.testing``. The server is in ``tools.muster``."""
