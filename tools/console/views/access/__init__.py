"""Users, roles and permissions of both versions: ``users`` is the view, ``dialogs`` asks before a change,
``key_fields`` which keys, also of a move."""
