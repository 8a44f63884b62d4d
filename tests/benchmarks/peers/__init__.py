"""Other servers for the same detector, each written as its own documentation recommends."""
