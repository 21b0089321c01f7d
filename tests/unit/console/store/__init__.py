"""The console, without a cluster."""
