"""Changes of members, as a person writes them."""

from __future__ import annotations


def urls(text: str) -> list[str]:
    """Peer URLs as a person writes them. ValueError."""
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found or any("://" not in one for one in found):
        raise ValueError("peer URLs look like http://10.0.0.5:2380")
    return found
