"""Those who wait for a change of the v2 tree.

Read ``feed`` (what happens, whom it concerns, whose turn it is), then ``waits`` (an event becomes the next
line of an answer).
"""
