"""Jobs: who owns one, what happened to it, what its user wants."""
