"""A host's settings from command line, environment and file: ``flags``, ``parse``, ``settings``,
``rotation``."""
