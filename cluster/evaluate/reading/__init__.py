"""Ranges: ``ranges`` builds an answer out of rows, with ``sorting``; ``row_parts`` are rows on their way to
a front."""
