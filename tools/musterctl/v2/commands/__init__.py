"""Commands of the v2 API; ``tools.musterctl.v2.table`` names the functions."""
