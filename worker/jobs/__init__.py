"""What each kind of job does, inside its own process."""
