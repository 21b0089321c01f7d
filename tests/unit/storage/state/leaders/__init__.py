"""What a leader writes from what it evaluated, beside what the record says."""
