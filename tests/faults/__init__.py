"""Real processes that are killed, stopped, starved and robbed while clients work; every answer is checked."""
