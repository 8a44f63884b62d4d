"""`harrier serve`: broker, API, engine and workers under one supervisor; none of them outlives it."""
