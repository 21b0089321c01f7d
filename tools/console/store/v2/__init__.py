"""The API of version 2, by HTTP. ``calls`` asks, ``nodes`` is the tree, ``accounts`` its users and roles."""
