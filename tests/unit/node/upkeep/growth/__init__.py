"""What the policy of growth has of the machine: samples, facts, its driver."""
