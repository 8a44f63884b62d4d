"""Networks as files that run without us."""
