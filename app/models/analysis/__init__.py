"""What a model costs and what it can do without: profiles and pruning."""
