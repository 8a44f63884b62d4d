"""Detection over HTTP: pictures in, boxes out, by way of the engine."""
