"""Ranges: ``ranges`` builds an answer out of rows, with ``sorting``; ``rows`` reads a view; ``row_parts`` are
rows on their way to a front."""
