"""When a node waits so that work is done together (``cluster.pacing`` has the policies).

``pauses`` (their timers), ``large`` (rests between large writes), ``spin`` (polls instead of sleeping).
"""
