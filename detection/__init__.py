"""The detection library: torch in, tensors out. It knows no web, database, queue or settings."""
