"""Pictures with boxes: reading and writing dataset formats, and preparing samples for training."""
