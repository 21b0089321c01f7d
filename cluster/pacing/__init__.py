"""When may work leave? Pure policies; ``docs/design/pacing.md`` has all waits together."""
