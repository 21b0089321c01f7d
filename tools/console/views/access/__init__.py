"""Users, roles and permissions of both versions: ``users`` is the view, ``dialogs`` asks before a change."""
