"""Keys and values: ``tree`` lists them, ``outline`` is a tree on a screen, ``values`` the forms of a value.

``edits`` changes keys, ``history`` tells what they were, ``copies`` makes files of them, ``commands`` lines
for a terminal.
"""
