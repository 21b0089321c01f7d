"""Parts of a node that move keys."""
