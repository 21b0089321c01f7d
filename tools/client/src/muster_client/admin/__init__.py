"""What operators do: users and roles (``auth``), members, and maintenance with snapshots."""
