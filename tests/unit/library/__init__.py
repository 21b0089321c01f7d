"""The client library alone."""
