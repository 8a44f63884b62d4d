"""The blocks that networks are made of."""
