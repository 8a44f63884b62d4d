"""Plans: how a model is served fastest on this machine, measured, and pinned to it."""
