"""The console in a real browser, Chromium: clicks, certificates, sizes, and the pictures of the documents."""
