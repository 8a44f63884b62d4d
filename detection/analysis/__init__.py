"""What a network costs: parameters and operations."""
