"""musterctl without a server."""
