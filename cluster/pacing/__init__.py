"""When may work leave? Pure policies, each with what it costs to wait.

``pace`` (group commit), ``gathering`` and ``late_feed`` (what nobody looks at is applied together),
``patience`` (whether a replica can wait for news of commits), ``returning`` (a moment for the clients that
were just answered), ``turns`` (a window that its owners use in turn), ``resting`` (between large writes,
while others ask). Time is passed in.
``docs/design/pacing.md`` has all waits together.
"""
