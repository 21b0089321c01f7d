"""What must hold, at every moment and of all that was answered."""
