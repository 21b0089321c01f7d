"""Order records into rows: ``apply``, with ``puts``, ``deletes`` and what shows at once (``late``)."""
