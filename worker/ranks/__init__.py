"""A training on several ranks: torchrun, the ranks that it starts, and their line to the job process."""
