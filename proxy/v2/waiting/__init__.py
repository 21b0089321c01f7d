"""Requests that wait for a change of the v2 tree: ``feed`` (events, and the waiters that each wakes), then
``waits`` (an event becomes the next line of an answer)."""
