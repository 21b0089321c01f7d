"""Checks of rows that are given a site: a member, another one, or the proxy, whose tree is empty."""
