"""The tree of version 2: ``tree`` is the view, ``dialogs`` asks before a change."""
