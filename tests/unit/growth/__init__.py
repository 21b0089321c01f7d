"""The policy of growth: its parts, and runs of it on a model of a cluster under loads that change."""
