"""What pytest does here beyond its own ways, registered by the conftest."""
