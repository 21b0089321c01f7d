"""What muster costs, told before one buys machines."""
