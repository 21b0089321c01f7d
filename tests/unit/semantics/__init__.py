"""What a request means: errors, validation, evaluation, ranges, leases."""
