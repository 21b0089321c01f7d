"""What programs of one system do together: find each other (``registry``, ``discovery``, ``channels``),
follow their configuration (``config``), and share their work (``leading``, ``cron``).
"""
