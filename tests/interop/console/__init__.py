"""The console on a real store, as a visitor sees it (``visitor``), and in a real browser (``chromium``)."""
