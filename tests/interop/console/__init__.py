"""The console on a real store, and in a real browser."""
