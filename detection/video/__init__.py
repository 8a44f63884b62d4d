"""Videos: known by their first bytes, read frame by frame as a person sees them, written with boxes drawn."""
