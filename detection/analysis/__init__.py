"""What a network costs, part by part, and what it can do without."""
