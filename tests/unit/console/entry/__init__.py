"""Who may come to the console, and how sessions begin and end."""
