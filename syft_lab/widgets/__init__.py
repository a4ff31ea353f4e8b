"""What notebooks show: given plain values, no domain logic."""
