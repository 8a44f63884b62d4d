"""How models are served at this moment, as the engine says it."""
